//! Generates the contract's services as a worker calls and serves them; the messages are `carousel-proto`'s.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../proto/carousel");
    let descriptors = protox::compile(["carousel/v1/training.proto"], ["../proto"])?;
    tonic_prost_build::configure()
        .extern_path(".carousel.v1", "::carousel_proto::v1")
        .compile_fds(descriptors)?;
    Ok(())
}
