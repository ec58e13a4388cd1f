//! Makes the corpus of the wire's targets and packs the files of a run, a prepared folder and a configuration into the
//! others': `cargo run -p carousel-fuzz --example corpus RUN PREPARED CONFIG`. docs/fuzzing.md has the whole recipe.

#![allow(clippy::unwrap_used, reason = "a tool that cannot go on ends where it stands")]

use std::fs;
use std::path::{Path, PathBuf};

use carousel_proto::PROTOCOL_VERSION;
use carousel_proto::v1::*;
use prost::Message;

fn main() {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [run, prepared, config] = &paths[..] else { panic!("expected RUN PREPARED CONFIG") };
    wire();
    keep("journal", "run", &fs::read(run.join("journal.bin")).unwrap());
    keep("committed", "run", &fs::read(run.join("committed.bin")).unwrap());
    keep("checkpoint", "run", &checkpoint(&run.join("checkpoints/latest")));
    keep("token_file", "train", &fs::read(prepared.join("train.safetensors")).unwrap());
    keep("prepared", "manifest", &fs::read(prepared.join("prepared.json")).unwrap());
    keep("tokenizer", "prepared", &fs::read(prepared.join("tokenizer.json")).unwrap());
    keep("configuration", "given", &fs::read(config).unwrap());
    keep("configuration", "resolved", &fs::read(run.join("config.toml")).unwrap());
    keep("text_source", "plain", b"\x00To be, or not to be.\n\xc3\xa4\n");
    keep("text_source", "lines", b"\x01{\"text\": \"To be\", \"n\": [1, {}]}\n\n{\"text\": null}\n");
}

fn keep(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), bytes).unwrap();
}

fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
    let frame = |m: &Vec<u8>| [&[0], &(m.len() as u32).to_be_bytes()[..], m].concat();
    messages.iter().flat_map(frame).collect()
}

fn checkpoint(folder: &Path) -> Vec<u8> {
    let names = ["state.json", "model.safetensors", "optimizer.safetensors", "carries.safetensors"];
    let files = names.map(|name| fs::read(folder.join(name)).unwrap());
    let lengths = files[..3].iter().flat_map(|file| (file.len() as u32).to_le_bytes());
    lengths.chain(files.concat()).collect()
}

fn wire() {
    session();
    deposit();
    windows();
    push();
    coordinator_says();
}

fn start(kind: Bulk, floats: u64, level: u32, rows: Vec<u32>) -> BulkStart {
    let (kind, bytes) = (kind.into(), 4 * floats);
    BulkStart { kind, term: 4, step: 9, level, bytes, rows, ..BulkStart::default() }
}

fn chunk(floats: usize) -> BulkChunk {
    BulkChunk { data: vec![0; 4 * floats].into() }
}

fn session() {
    let hello = Hello { protocol: PROTOCOL_VERSION, host: "here".into(), ..Hello::default() };
    use from_worker::Message as Said;
    let loss = LaneLoss { lane: 1, tokens: 77, sum: 3.5 };
    let session = [
        Said::Hello(hello),
        Said::BulkStart(start(Bulk::Partial, 9, 1, vec![1, 4])),
        Said::BulkChunk(chunk(9)),
        Said::BulkStart(start(Bulk::Carries, 6, 1, vec![])),
        Said::StepReport(StepReport { term: 4, step: 9, losses: vec![loss], microseconds: 7 }),
        Said::Ready(Ready { step: 9, replica_digest: vec![7; 32].into() }),
        Said::Acknowledge(Acknowledge { term: 4, step: 9 }),
        Said::Failure(Failure { message: "out of memory".into() }),
    ];
    let encoded = session.map(|message| FromWorker { message: Some(message) }.encode_to_vec());
    keep("wire", "session", &[&[0][..], &framed(&encoded)].concat());
}

fn deposit() {
    use from_depositor::Message as Deposited;
    let section = |index| BulkStart { index, ..start(Bulk::Replica, 15, 0, vec![]) };
    let deposit = [
        Deposited::Hello(DepositHello { protocol: PROTOCOL_VERSION, worker_id: 4, step: 9 }),
        Deposited::BulkStart(section(0)),
        Deposited::BulkChunk(chunk(15)),
        Deposited::BulkStart(section(1)),
        Deposited::BulkChunk(chunk(15)),
        Deposited::Sent(ReplicaSent { step: 9, replica_digest: vec![7; 32].into() }),
    ];
    let encoded = deposit.map(|message| FromDepositor { message: Some(message) }.encode_to_vec());
    keep("wire", "deposit", &[&[1][..], &framed(&encoded)].concat());
}

fn windows() {
    let span = Some(WindowSpan { start: 11, steps: 7 });
    let by_span = WindowRequest { split: Split::Train.into(), lanes: 3, span, ..WindowRequest::default() };
    let by_index =
        WindowRequest { split: Split::Valid.into(), window: 1, lanes: 2, ..WindowRequest::default() };
    let encoded = [by_span.encode_to_vec(), by_index.encode_to_vec()];
    keep("wire", "windows", &[&[2][..], &framed(&encoded)].concat());
}

fn push() {
    use from_peer::Message as Pushed;
    let segment = Segment {
        kind: Bulk::Partial.into(),
        term: 4,
        step: 9,
        data: vec![1; 40].into(),
        ..Segment::default()
    };
    let push = [
        Pushed::Hello(PeerHello { protocol: PROTOCOL_VERSION, worker_id: 3 }),
        Pushed::Segment(segment),
        Pushed::BulkStart(start(Bulk::Reduced, 4, 0, vec![1, 4])),
        Pushed::BulkChunk(chunk(4)),
    ];
    // The receiver takes the Hello off before it checks the rest.
    let encoded =
        push[1..].iter().cloned().map(|message| FromPeer { message: Some(message) }.encode_to_vec());
    keep("peer", "push", &[&[30][..], &framed(&encoded.collect::<Vec<_>>())].concat());
}

fn coordinator_says() {
    use from_coordinator::Message as Told;
    let model = ModelSettings {
        cell: "lstm".into(),
        vocabulary: 50,
        embedding: 9,
        hidden: 13,
        layers: 2,
        init: 0.1,
        initialisation: "uniform".into(),
        ..ModelSettings::default()
    };
    let adam = Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 };
    let settings = RunSettings {
        seed: 3,
        model: Some(model),
        optimizer: Some(OptimizerSettings { kind: Some(optimizer_settings::Kind::Adam(adam)) }),
        streams: 7,
        window: 11,
        lanes: 3,
        longest_window: 11,
        accumulate: 1,
        ..RunSettings::default()
    };
    let session = [
        Told::Welcome(Welcome { worker_id: 1, settings: Some(settings), run_id: vec![1; 16].into() }),
        Told::LoadReplica(LoadReplica { step: 0, source: ReplicaSource::Seed.into(), peers: vec![] }),
        Told::Assign(Assign { term: 1, step: 1, lanes: 3, step_tokens: 77, ..Assign::default() }),
        Told::Commit(Commit { term: 1, step: 1, clip_scale: 1.0, learning_rate: 0.1, averaged_from: None }),
    ];
    let encoded = session.map(|message| FromCoordinator { message: Some(message) }.encode_to_vec());
    keep("coordinator_says", "session", &framed(&encoded));
}
