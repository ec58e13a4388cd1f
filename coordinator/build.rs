//! Generates the services of the contract as the coordinator serves and an operator calls them; the messages are
//! `carousel-proto`'s.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../proto/carousel");
    let descriptors =
        protox::compile(["carousel/v1/training.proto", "carousel/v1/operations.proto"], ["../proto"])?;
    tonic_prost_build::configure()
        .extern_path(".carousel.v1", "::carousel_proto::v1")
        .compile_fds(descriptors)?;
    Ok(())
}
