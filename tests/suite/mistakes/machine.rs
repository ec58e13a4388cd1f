//! Mistakes that the machine is part of: disks, ports, and who is not at the other end.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use super::{mistake, mistake_with};
use crate::netlab::say_aloud;
use crate::program::Workshop;

/// A small disk, taken away when dropped.
struct Disk(PathBuf);

impl Disk {
    /// One of so many bytes in a folder of the workshop. Where this machine allows none: says so, past the
    /// harness, and gives none.
    fn mount(shop: &Workshop, name: &str, options: &str) -> Option<Self> {
        let folder = shop.path(name);
        std::fs::create_dir(&folder).unwrap();
        let mut mount = Command::new("mount");
        let output =
            mount.args(["-t", "tmpfs", "-o", options, "carousel-test"]).arg(&folder).output().unwrap();
        if output.status.success() {
            return Some(Self(folder));
        }
        let problem = String::from_utf8_lossy(&output.stderr);
        say_aloud(&format!("SKIPPED: no disk of its own for a test: {problem}"));
        None
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking(), "{:?}", self.0);
    }
}

#[test]
fn mistakes_with_a_disk() {
    let shop = Workshop::new();
    mistake("file_where_a_folder_is_needed", &shop, &["train", "run.toml", "--run", "text.txt/run"]);
    let Some(_read_only) = Disk::mount(&shop, "read-only", "ro,size=1m") else { return };
    mistake("read_only_folder", &shop, &["train", "run.toml", "--run", "read-only/run"]);
    let Some(_small) = Disk::mount(&shop, "small", "size=16k") else { return };
    let full = shop.command(&["train", "run.toml", "--run", "small/run"]);
    mistake_with("no_space_left", &shop, full, 1);
}

#[test]
fn mistakes_with_an_address() {
    let shop = Workshop::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let listen = ["coordinator", "run.toml", "--run", "new", "--listen"];
    mistake("port_taken", &shop, &[&listen[..], &[&address]].concat());
    mistake("listening_beyond_this_machine_unlocked", &shop, &[&listen[..], &["0.0.0.0:0"]].concat());
    drop(taken);
    let alone = shop.command(&["worker", "--coordinator", &address, "--wait", "1"]);
    mistake_with("no_coordinator_for_a_worker", &shop, alone, 1);
    mistake_with("no_coordinator_for_status", &shop, shop.command(&["status", &address]), 1);
}

/// Passes one connection on, with the first of these bytes in the place of the others: a program that says of itself what it is
/// not.
fn altering(to: String, (from, into): (&'static [u8], &'static [u8])) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (mut inbound, _) = listener.accept().unwrap();
        let mut outbound = TcpStream::connect(to).unwrap();
        let (mut back_from, mut back_to) = (outbound.try_clone().unwrap(), inbound.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut back_from, &mut back_to).unwrap_or_default());
        let mut bytes = [0; 65536];
        while let Ok(count @ 1..) = inbound.read(&mut bytes) {
            let place = bytes[..count].windows(from.len()).position(|part| part == from);
            if let Some(at) = place {
                bytes[at..at + into.len()].copy_from_slice(into);
            }
            if outbound.write_all(&bytes[..count]).is_err() {
                return;
            }
        }
    });
    address
}

/// Field 1, the protocol, and field 2, the program's version, of a worker's first message.
const OURS: &[u8] = &[8, carousel_proto::PROTOCOL_VERSION as u8, 18, 5];
const THEIRS: &[u8] = &[8, 99, 18, 5];

#[test]
fn a_worker_of_another_version() {
    let shop = Workshop::new();
    let mut coordinator = shop.start(&["coordinator", "run.toml", "--run", "run", "--listen", "127.0.0.1:0"]);
    coordinator.wait_for("listening   http://");
    let printed = coordinator.printed();
    let address = printed.lines().find_map(|line| line.strip_prefix("listening   http://")).unwrap();
    let proxy = altering(address.trim().to_owned(), (OURS, THEIRS));
    mistake("worker_of_another_version", &shop, &["worker", "--coordinator", &proxy]);
}
