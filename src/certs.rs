//! `carousel certs`: a private authority, a certificate for each role, and a join token, in a folder.

use std::path::{Path, PathBuf};

use carousel_security::{Authority, CertificatesError, Role};

use crate::failure::Failure;

/// Make the certificates and the join token of a cluster
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  carousel certs certs\n  carousel coordinator run.toml --listen 0.0.0.0:7700 --tls certs/coordinator \
                  --token-file certs/token\n  carousel worker --coordinator head:7700 --tls certs/worker --token-file certs/token"
)]
pub(crate) struct Arguments {
    /// The folder to make
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Days that the certificates are good for
    #[arg(long, value_name = "N", default_value_t = 365)]
    days: u32,
    /// New certificates of the authority that is there, in place; running processes take them from the next connection on
    #[arg(long)]
    renew: bool,
    /// A further name or address in the certificates, for other programs: Carousel goes by roles; may be repeated
    #[arg(long = "name", value_name = "DNS_OR_IP")]
    names: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { folder, days, renew, names } = arguments;
    let make = if *renew { Authority::renew } else { Authority::make };
    let made = make(folder, *days, names).map_err(|error| match error {
        CertificatesError::Make { .. } => Failure::failed(error),
        _ => Failure::bad_input(error),
    })?;
    let longest = made.roles.iter().map(|(_, path)| path.display().to_string().len()).max().unwrap_or(0);
    let line =
        |name, path: &Path, what| println!("{name:<12}{:<longest$}  {what}", path.display().to_string());
    for (role, path) in &made.roles {
        line(role.name(), path, purpose(*role));
    }
    line("token", &folder.join("token"), "for coordinator and workers");
    line("authority", &folder.join("ca"), "stays here: its key makes more certificates");
    println!("good for    {days} days; then carousel certs {} --renew", folder.display());
    Ok(())
}

fn purpose(role: Role) -> &'static str {
    match role {
        Role::Coordinator => "for the coordinator's machine",
        Role::Worker => "for every worker",
        Role::Operator => "for who may drain, checkpoint and stop",
        Role::Observer => "for who may only look",
    }
}
