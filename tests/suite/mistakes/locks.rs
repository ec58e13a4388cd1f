//! Mistakes with certificates and tokens, at the door of a locked run. Every combination is `security/tests/doors.rs`.

use std::time::Duration;

use carousel_security::Authority;

use super::mistake;
use crate::program::Workshop;

#[test]
fn mistakes_at_a_locked_door() {
    let shop = Workshop::new();
    // Certificates that expire at once, kept apart; then good ones of the same authority.
    Authority::make(&shop.path("certs"), 0, &[]).unwrap();
    std::fs::rename(shop.path("certs/worker"), shop.path("expired")).unwrap();
    shop.succeed(&["certs", "certs", "--renew", "--days", "30"]);
    shop.succeed(&["certs", "others"]);
    std::thread::sleep(Duration::from_millis(1100));
    let locked = ["--tls", "certs/coordinator", "--token-file", "certs/token"];
    let listen = ["coordinator", "run.toml", "--run", "run", "--listen", "127.0.0.1:0"];
    let mut coordinator = shop.start(&[&listen[..], &locked].concat());
    coordinator.wait_for("listening   https://");
    let printed = coordinator.printed();
    let address = printed.lines().find_map(|line| line.strip_prefix("listening   https://")).unwrap().trim();
    let cases: [(&str, &[&str]); 6] = [
        ("no_certificate", &[]),
        ("certificate_expired", &["--tls", "expired"]),
        ("certificate_of_another_authority", &["--tls", "others/worker"]),
        ("certificate_of_the_wrong_role", &["--tls", "certs/observer"]),
        ("no_token", &["--tls", "certs/worker"]),
        ("wrong_token", &["--tls", "certs/worker", "--token-file", "others/token"]),
    ];
    for (name, further) in cases {
        mistake(name, &shop, &[&["worker", "--coordinator", address][..], further].concat());
    }
}
