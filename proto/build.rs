//! Generates the messages from `carousel/v1/*.proto` without an installed protoc. Services are generated where they are
//! served or called (`coordinator`, `worker`), so that this crate stays free of any transport.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=carousel");
    let descriptors = protox::compile(["carousel/v1/training.proto", "carousel/v1/operations.proto"], ["."])?;
    prost_build::Config::new().bytes(["."]).compile_fds(descriptors)?;
    Ok(())
}
