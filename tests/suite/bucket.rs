//! Runs kept in a bucket, against a real S3 server (SeaweedFS, named by `CAROUSEL_TEST_WEED`) on loopback.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::program::{Running, Workshop, eventually, free_port, signal};

const IDENTITIES: &str = r#"{"identities":[{"name":"t","credentials":[{"accessKey":"testkey","secretKey":"testsecret"}],"actions":["Admin","Read","Write","List","Tagging"]}]}"#;
const RUN: &str = "s3://runs/one";

/// An S3 server that ends with the test.
struct Weed {
    program: String,
    /// Of master, volume, filer and S3, then their gRPC ports.
    ports: [u16; 8],
    folder: tempfile::TempDir,
    process: Child,
}

impl Weed {
    fn start() -> Option<Self> {
        let Ok(program) = std::env::var("CAROUSEL_TEST_WEED") else {
            assert!(std::env::var_os("CI").is_none(), "CI has no S3 server: set CAROUSEL_TEST_WEED");
            eprintln!("SKIPPED: no S3 server; name SeaweedFS's program in CAROUSEL_TEST_WEED");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("s3.json"), IDENTITIES).unwrap();
        let ports = [(); 8].map(|()| free_port());
        let process = launch(&program, ports, folder.path());
        let weed = Self { program, ports, folder, process };
        weed.wait();
        weed.make_bucket();
        Some(weed)
    }

    fn wait(&self) {
        let open = || std::net::TcpStream::connect(("127.0.0.1", self.ports[3])).ok();
        assert!(eventually(open).is_some(), "the S3 port did not open");
    }

    fn make_bucket(&self) {
        let made = eventually(|| self.filer("POST", "runs/")?.starts_with("HTTP/1.1 201").then_some(()));
        assert!(made.is_some(), "no bucket");
    }

    /// What the filer answers, which wants no signature: a bucket is a folder there.
    fn filer(&self, method: &str, path: &str) -> Option<String> {
        use std::io::{Read, Write};
        let filer = format!("127.0.0.1:{}", self.ports[2]);
        let mut stream = std::net::TcpStream::connect(&filer).ok()?;
        let head = format!(
            "{method} /buckets/{path} HTTP/1.1\r\nhost: {filer}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn end(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts the server again; it answers 500 for some seconds until its parts have found each other.
    fn again(&mut self, shop: &Workshop) {
        self.process = launch(&self.program, self.ports, self.folder.path());
        self.wait();
        let answers = || {
            let mut look = shop.spawn(self.command(shop, &["digest", RUN], "testsecret"));
            look.wait().filter(|status| status.code() != Some(1))
        };
        assert!(eventually(answers).is_some(), "the server does not answer");
    }

    fn command(&self, shop: &Workshop, arguments: &[&str], secret: &str) -> Command {
        let mut command = shop.command(arguments);
        command.env("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.ports[3]));
        command.envs([
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "testkey"),
        ]);
        command.env("AWS_SECRET_ACCESS_KEY", secret);
        command
    }

    /// Trains in the bucket, working in the folder `scratch`.
    fn train(&self, shop: &Workshop, scratch: &str, further: &[&str]) -> Running {
        let set = format!("output.scratch={scratch}");
        let mut arguments = vec!["train", "run.toml", "--run", RUN, "--set", &set];
        arguments.extend(["--set", "output.lease_seconds=4", "--set", "train.epochs=2"]);
        arguments.extend(further);
        shop.spawn(self.command(shop, &arguments, "testsecret"))
    }

    fn digest(&self, shop: &Workshop) -> String {
        let mut running = shop.spawn(self.command(shop, &["digest", RUN], "testsecret"));
        assert!(running.wait().unwrap().success(), "{}", running.said());
        running.printed()
    }
}

impl Drop for Weed {
    fn drop(&mut self) {
        self.end();
    }
}

fn launch(program: &str, ports: [u16; 8], folder: &std::path::Path) -> Child {
    let mut command = Command::new(program);
    command.args(["-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]);
    command.args([
        "-master.telemetry=false",
        "-filer",
        "-s3",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=8",
    ]);
    command.arg(format!("-dir={}", folder.display()));
    // These have ports of their own, which a second server would find taken.
    command.args(["-s3.port.iceberg=0", "-s3.port.lance=0"]);
    let parts = ["master", "volume", "filer", "s3"];
    let flags = parts.map(|part| format!("-{part}.port=")).into_iter();
    let flags = flags.chain(parts.map(|part| format!("-{part}.port.grpc=")));
    command.args(flags.zip(ports).map(|(flag, port)| format!("{flag}{port}")));
    command.arg(format!("-s3.config={}", folder.join("s3.json").display()));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn quiet(shop: &Workshop) -> String {
    shop.trained("quiet", &["--set", "train.epochs=2"])
}

fn ends_well(mut running: Running) {
    let status = running.wait().expect("it ends");
    assert!(status.success(), "{}{}", running.printed(), running.said());
}

fn ends_with(mut running: Running, code: i32, parts: &[&str]) {
    let status = running.wait().expect("it ends");
    let said = running.said();
    assert_eq!(status.code(), Some(code), "{}{said}", running.printed());
    parts.iter().for_each(|part| assert!(said.contains(part), "no {part:?} in {said}"));
}

#[test]
fn a_killed_coordinators_run_goes_on_from_the_bucket_on_an_empty_machine_to_the_same_bits() {
    let Some(weed) = Weed::start() else { return };
    let shop = Workshop::new();
    let quiet = quiet(&shop);
    let first = weed.train(&shop, "a", &["--set", "train.checkpoint_every=5"]);
    // The bucket has a checkpoint: only then is something to go on with.
    let up = eventually(|| {
        let mut look = shop.spawn(weed.command(&shop, &["digest", RUN], "testsecret"));
        look.wait().filter(std::process::ExitStatus::success)
    });
    assert!(up.is_some(), "no checkpoint came up");
    signal("KILL", first.id());
    drop(first);
    std::fs::remove_dir_all(shop.path("a")).unwrap();
    let set = ["--set", "train.checkpoint_every=5"];
    ends_well(weed.train(&shop, "b", &[&["--resume"][..], &set].concat()));
    assert_eq!(weed.digest(&shop), quiet);
    let mut verified = shop.spawn(weed.command(&shop, &["verify", RUN], "testsecret"));
    assert!(verified.wait().unwrap().success(), "{}{}", verified.printed(), verified.said());
}

#[test]
fn a_wrong_secret_is_refused_with_what_to_set_and_nothing_is_written() {
    let Some(weed) = Weed::start() else { return };
    let shop = Workshop::new();
    let arguments = ["train", "run.toml", "--run", RUN, "--set", "output.scratch=s"];
    let refused = shop.spawn(weed.command(&shop, &arguments, "wrong"));
    ends_with(refused, 2, &[RUN, "AWS_SECRET_ACCESS_KEY"]);
    assert!(!shop.path("s").join("run").exists());
    ends_with(shop.spawn(weed.command(&shop, &["digest", RUN], "testsecret")), 2, &["there is no run here"]);
}

#[test]
fn a_second_coordinator_is_refused_and_one_that_was_suspended_is_overtaken() {
    let Some(weed) = Weed::start() else { return };
    let shop = Workshop::new();
    let long = ["--set", "train.epochs=400", "--set", "train.checkpoint_every=50"];
    let mut first = weed.train(&shop, "a", &long);
    first.wait_for("checkpoint  ");
    let resume = [&["--resume"][..], &long].concat();
    ends_with(
        weed.train(&shop, "b", &resume),
        2,
        &["another coordinator works on this run", &first.id().to_string()],
    );
    signal("STOP", first.id());
    let mut second = weed.train(&shop, "b", &resume);
    second.wait_for("checkpoint  ");
    signal("CONT", first.id());
    ends_with(first, 1, &["taken over", &second.id().to_string()]);
    assert!(shop.path("a/run/config.toml").exists(), "the scratch is kept");
    signal("TERM", second.id());
    assert_eq!(second.wait().unwrap().code(), Some(130), "{}", second.said());
}

#[test]
fn a_server_that_was_away_gets_everything_when_it_is_back() {
    let Some(mut weed) = Weed::start() else { return };
    let shop = Workshop::new();
    let quiet = shop.trained("quiet", &["--set", "train.epochs=60"]);
    let further = ["--set", "train.epochs=60", "--set", "train.checkpoint_every=20"];
    let mut run = weed.train(&shop, "a", &further);
    run.wait_for("checkpoint  ");
    weed.end();
    run.wait_for("unwritten   bucket");
    std::thread::sleep(Duration::from_secs(1));
    weed.again(&shop);
    ends_well(run);
    assert_eq!(weed.digest(&shop), quiet);
}

#[test]
fn a_run_whose_end_does_not_get_up_says_where_it_is_and_resume_uploads_it() {
    let Some(mut weed) = Weed::start() else { return };
    let shop = Workshop::new();
    let quiet = shop.trained("quiet", &["--set", "train.epochs=60"]);
    let further = ["--set", "train.epochs=60", "--set", "output.patience_seconds=1"];
    let mut run = weed.train(&shop, "a", &further);
    run.wait_for("checkpoint  ");
    weed.end();
    ends_with(run, 1, &["run again with --resume", "a/run"]);
    weed.again(&shop);
    let patient = ["--set", "train.epochs=60", "--resume"];
    ends_well(weed.train(&shop, "a", &patient));
    assert_eq!(weed.digest(&shop), quiet);
}

#[test]
fn tokens_prepared_in_the_bucket_train_the_run_of_their_text_without_it() {
    let Some(weed) = Weed::start() else { return };
    let shop = Workshop::new();
    let quiet = quiet(&shop);
    let prepare = || {
        let arguments = ["prepare", "run.toml", "--out", "s3://runs/tokens"];
        let mut running = shop.spawn(weed.command(&shop, &arguments, "testsecret"));
        assert!(running.wait().unwrap().success(), "{}", running.said());
        running.printed()
    };
    assert!(prepare().contains("sent        s3://runs/tokens\n"));
    assert!(prepare().contains("s3://runs/tokens fits already"));
    std::fs::remove_file(shop.path("text.txt")).unwrap();
    let train = |run: &str, workers: &str| {
        let workers = format!("cluster.workers={workers}");
        let mut arguments = vec!["train", "run.toml", "--run", run];
        let sets = ["train.epochs=2", "data.prepared=s3://runs/tokens", "cluster.tokens=s3://runs/tokens"];
        sets.into_iter().chain([&*workers]).for_each(|set| arguments.extend(["--set", set]));
        shop.spawn(weed.command(&shop, &arguments, "testsecret"))
    };
    for workers in ["1", "3"] {
        ends_well(train(workers, workers));
        assert_eq!(shop.digest(workers), quiet);
    }
    // A copy that did not come to its end has no manifest.
    assert!(weed.filer("DELETE", "runs/tokens/prepared.json").unwrap().starts_with("HTTP/1.1 204"));
    ends_with(train("half", "1"), 2, &["data.prepared", "s3://runs/tokens", "carousel prepare"]);
    assert!(!shop.path("half").exists());
}
