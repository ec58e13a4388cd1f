//! The systemd units, checked by systemd's own reader; nothing is started.

use std::fs;
use std::process::Command;

use crate::{deploy, is_there, skipped};

#[test]
fn the_units_are_understood_by_systemd_and_well_locked() {
    if !is_there("systemd-analyze") {
        return skipped("a check of the systemd units", "no systemd-analyze (Debian: systemd)");
    }
    let folder = tempfile::tempdir().unwrap();
    let units = [
        ("carousel-coordinator.service", "carousel-coordinator.service"),
        ("carousel-worker@.service", "carousel-worker@8.service"),
    ];
    for (name, instance) in units {
        let unit = fs::read_to_string(deploy("systemd").join(name)).unwrap();
        assert!(unit.contains("ExecStart=/usr/local/bin/carousel "), "{unit}");
        let path = folder.path().join(instance);
        // The reader wants a program that is there.
        fs::write(&path, unit.replace("/usr/local/bin/carousel", "/bin/true")).unwrap();
        let output =
            Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{name}: {said}");
        let rated = Command::new("systemd-analyze")
            .args(["security", "--offline=yes", "--threshold=20", "--no-pager"])
            .arg(&path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&rated.stdout);
        assert!(rated.status.success(), "{name} is exposed more than 2.0 of 10: {said}");
    }
}
