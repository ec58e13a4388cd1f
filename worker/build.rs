//! Generates the client side of the contract's services; the messages are `carousel-proto`'s.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../proto/carousel");
    let descriptors = protox::compile(["carousel/v1/training.proto"], ["../proto"])?;
    tonic_prost_build::configure()
        .build_server(false)
        .extern_path(".carousel.v1", "::carousel_proto::v1")
        .compile_fds(descriptors)?;
    Ok(())
}
