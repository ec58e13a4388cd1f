//! Folders of token files: what is in them, that they are the same however they are made, and everything that makes
//! one unusable.

use std::fs;
use std::path::{Path, PathBuf};

use carousel_corpus::{
    Corpus, CorpusError, DataConfig, DocumentOrder, Documents, Opened, Prepared, PreparedError, Split,
    StreamPlan, TokenFile, TokenFileError, Tokenizer, TokenizerConfig, Tokens,
};
use tempfile::TempDir;

/// Texts in a folder of their own, and a configuration of them.
struct Shelf {
    folder: TempDir,
    config: DataConfig,
}

impl Shelf {
    fn new(tokenizer: TokenizerConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = DataConfig { tokenizer, valid_fraction: 0.25, ..DataConfig::default() };
        let mut shelf = Shelf { folder, config };
        shelf.config.train =
            vec![shelf.write("a.txt", &text(60)), shelf.write("b.txt", "one more\nlast line")];
        shelf
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    fn make(&self, name: &str) -> Result<Prepared, CorpusError> {
        Prepared::make(&self.path(name), &self.config, &mut |_| {}).map(|made| made.prepared)
    }

    fn open(&self, name: &str) -> Result<Opened, CorpusError> {
        let prepared = Prepared::find(&self.path(name)).unwrap().expect("it was made");
        prepared.open(&self.config, false, &mut |_| {})
    }

    fn refused(&self, name: &str) -> String {
        self.open(name).unwrap_err().to_string()
    }

    fn train_file(&self) -> PathBuf {
        self.path("p/train.safetensors")
    }
}

fn text(lines: u32) -> String {
    (0..lines).map(|n| format!("line {n} of the text, {} again\n", n * n % 17)).collect()
}

fn all(tokens: impl Into<Tokens>) -> Vec<u32> {
    let (tokens, mut all) = (tokens.into(), Vec::new());
    tokens.read(0..tokens.len(), &mut all).unwrap();
    all
}

/// Every file of a folder with its bytes.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn token_files_hold_what_is_made_in_memory() {
    for tokenizer in [TokenizerConfig::CHARS, TokenizerConfig::Bytes, TokenizerConfig::WORDS] {
        for documents in [Documents::Joined, Documents::Apart] {
            let mut shelf = Shelf::new(tokenizer.clone());
            shelf.config.documents = documents;
            shelf.config.test = vec![shelf.write("test.txt", "line 7 is unheard of\n")];
            shelf.make("p").unwrap();
            let opened = shelf.open("p").unwrap();
            let corpus = Corpus::load(&shelf.config).unwrap();
            assert_eq!(opened.tokenizer.to_json(), corpus.tokenizer.to_json());
            assert_eq!(opened.train.document_ends(), corpus.train_documents.as_deref());
            assert_eq!(all(opened.train), corpus.train, "{tokenizer} {documents:?}");
            assert_eq!(all(opened.valid.unwrap()), corpus.valid.unwrap());
            assert_eq!(all(opened.test.unwrap()), corpus.test.unwrap());
        }
    }
}

#[test]
fn any_number_of_threads_writes_the_same_bytes() {
    let mut shelf = Shelf::new(TokenizerConfig::WORDS);
    // Several MiB: many batches.
    shelf.config.train.push(shelf.write("long.txt", &text(300_000)));
    let made: Vec<_> = [1, 2, 5]
        .map(|threads| {
            let name = format!("p{threads}");
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| shelf.make(&name)).unwrap();
            contents(&shelf.path(&name))
        })
        .to_vec();
    assert!(made[0].iter().any(|(_, bytes)| bytes.len() > 4 << 20));
    assert!(made[1] == made[0] && made[2] == made[0]);
}

/// As others read it: by the safetensors crate, from the bytes alone.
#[test]
fn a_token_file_is_a_safetensors_file_whose_tokens_begin_at_a_page() {
    let mut shelf = Shelf::new(TokenizerConfig::Bytes);
    shelf.config.documents = Documents::Apart;
    shelf.config.valid_fraction = 0.0;
    shelf.config.train = vec![shelf.write("1", "abc"), shelf.write("2", "de\n")];
    shelf.make("p").unwrap();
    let bytes = fs::read(shelf.train_file()).unwrap();
    let (header, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header + 8, 4096);
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tokens = file.tensor("tokens").unwrap();
    assert_eq!((tokens.dtype(), tokens.shape()), (safetensors::Dtype::U16, &[8][..]));
    assert_eq!(tokens.data(), b"a\0b\0c\0\0\x01d\0e\0\n\0\0\x01", "each document ends with token 256");
    let documents = file.tensor("documents").unwrap();
    assert_eq!(documents.data(), [4u64.to_le_bytes(), 8u64.to_le_bytes()].concat());
    assert_eq!((documents.data().as_ptr() as usize - bytes.as_ptr() as usize) % 8, 0);
    let said = metadata.metadata().clone().unwrap();
    let tokenizer = fs::read(shelf.path("p/tokenizer.json")).unwrap();
    assert_eq!(said["tokenizer"], blake3::hash(&tokenizer).to_string());
    assert_eq!(said["text"], blake3::hash(b"abc\nde\n").to_string());
    assert_eq!((&*said["tokens"], &*said["documents"], &*said["format"]), ("8", "2", "1"));
}

#[test]
fn a_vocabulary_beyond_two_bytes_gets_four() {
    let mut shelf = Shelf::new(TokenizerConfig::WORDS);
    shelf.config.valid_fraction = 0.0;
    for (words, width) in [(65_534, 2), (65_535, 4)] {
        // With <eos> and <unk> that is a vocabulary of 65,536 and of one more; each word comes once.
        let words: String = (0..words).map(|n| format!("w{n} ")).collect();
        shelf.config.train = vec![shelf.write("words.txt", &words)];
        shelf.make("p").unwrap();
        let opened = shelf.open("p").unwrap();
        let length = fs::metadata(shelf.train_file()).unwrap().len();
        assert_eq!(length, 4096 + width * opened.train.tokens());
        let tokens = all(opened.train);
        assert_eq!(opened.tokenizer.decode(&tokens).trim_end(), words.trim_end());
        assert_eq!(*tokens.iter().max().unwrap() as usize + 3, opened.tokenizer.vocabulary());
    }
}

#[test]
fn documents_apart_need_a_token_that_ends_them() {
    let mut shelf = Shelf::new(TokenizerConfig::WORDS);
    shelf.config.documents = Documents::Apart;
    shelf.config.eos = "</s>".into();
    let error = shelf.make("p").unwrap_err();
    assert!(matches!(&error, CorpusError::NoEos { .. }), "{error:?}");
    assert!(error.to_string().contains("data.eos = \"</s>\""), "{error}");
    assert!(!shelf.path("p").exists() && !shelf.path("p.partial").exists());
    shelf.config.eos = "<eos>".into();
    shelf.config.train = vec![shelf.write("one", "one document\n")];
    let error = shelf.make("p").unwrap_err().to_string();
    assert!(error.contains("data.valid_fraction = 0.25") && error.contains("1 documents"), "{error}");
}

#[test]
fn a_file_that_was_cut_short_or_altered_is_named() {
    let shelf = Shelf::new(TokenizerConfig::WORDS);
    shelf.make("p").unwrap();
    let whole = fs::read(shelf.train_file()).unwrap();
    let last = whole.len() - 1;
    let altered = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        bytes
    };
    let same_length = |from: &str, to: &str| {
        let header = std::str::from_utf8(&whole[8..4096]).unwrap();
        assert!(header.contains(from) && from.len() == to.len(), "{from}");
        [&whole[..8], header.replace(from, to).as_bytes(), &whole[4096..]].concat()
    };
    for (bytes, parts) in [
        (whole[..last].to_vec(), &["bytes, expected", "cut short"][..]),
        ([&whole[..], b"x"].concat(), &["bytes, expected", "grew"]),
        (whole[..4000].to_vec(), &["a header of 4088 bytes in a file of 4000"]),
        (vec![], &["0 bytes, expected a header"]),
        (vec![0; 5000], &["a header of 0 bytes"]),
        ([u64::MAX.to_le_bytes().as_slice(), &[0; 99]].concat(), &["header of 18446744073709551615 bytes"]),
        (altered(9, b'x'), &["no safetensors header"]),
        (altered(4096, whole[4096] ^ 1), &["tokens has the hash", "altered"]),
        (altered(4097, 0xFF), &["token 0 is", "expected less than the vocabulary of"]),
        (same_length("carousel tokens", "carousel tokenz"), &["carousel tokenz"]),
        (same_length("\"format\":\"1\"", "\"format\":\"2\""), &["format \"2\", expected", "\"1\""]),
        (same_length("\"U16\"", "\"I16\""), &["I16", "expected one row of U16"]),
        (same_length("\"split\":\"train\"", "\"split\":\"valid\""), &["of valid", "of train"]),
    ] {
        fs::write(shelf.train_file(), &bytes).unwrap();
        let message = shelf.refused("p");
        for part in parts.iter().chain(&["train.safetensors"]) {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    }
    fs::write(shelf.train_file(), &whole).unwrap();
    shelf.open("p").unwrap();
}

#[test]
fn documents_that_do_not_cover_the_tokens_are_refused() {
    let mut shelf = Shelf::new(TokenizerConfig::Bytes);
    shelf.config.documents = Documents::Apart;
    shelf.make("p").unwrap();
    let whole = fs::read(shelf.train_file()).unwrap();
    let header = String::from_utf8_lossy(&whole[8..4096]).into_owned();
    let header: serde_json::Value = serde_json::from_str(&header).unwrap();
    let at = 4096 + header["documents"]["data_offsets"][0].as_u64().unwrap() as usize;
    let mut bytes = whole.clone();
    bytes[at] ^= 1;
    fs::write(shelf.train_file(), &bytes).unwrap();
    assert!(shelf.refused("p").contains("documents has the hash"));
    // With the right hash of the wrong ends.
    let old = header["__metadata__"]["documents_blake3"].as_str().unwrap();
    let new = blake3::hash(&bytes[at..]).to_string();
    let replaced = std::str::from_utf8(&whole[8..4096]).unwrap().replace(old, &new);
    bytes.splice(8..4096, replaced.bytes());
    fs::write(shelf.train_file(), &bytes).unwrap();
    let message = shelf.refused("p");
    assert!(message.contains("documents do not cover"), "{message}");
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_an_error() {
    let shelf = Shelf::new(TokenizerConfig::Bytes);
    shelf.make("p").unwrap();
    let tokens = Tokens::from(TokenFile::open(&shelf.train_file()).unwrap());
    let file = fs::OpenOptions::new().write(true).open(shelf.train_file()).unwrap();
    file.set_len(4196).unwrap();
    let mut read = Vec::new();
    tokens.read(0..50, &mut read).unwrap();
    let error = tokens.read(40..60, &mut read).unwrap_err();
    assert!(matches!(&error, TokenFileError::Length { found: 4196, expected: 4216, .. }), "{error:?}");
}

#[test]
fn another_tokenizer_beside_the_tokens_is_refused() {
    let shelf = Shelf::new(TokenizerConfig::WORDS);
    shelf.make("p").unwrap();
    let other = Tokenizer::for_text(&TokenizerConfig::WORDS, "other words").unwrap();
    fs::write(shelf.path("p/tokenizer.json"), other.to_json()).unwrap();
    let message = shelf.refused("p");
    assert!(
        message.contains("train.safetensors: made by the tokenizer") && message.contains("do not belong")
    );
}

#[test]
fn a_folder_of_another_configuration_names_the_key() {
    let mut shelf = Shelf::new(TokenizerConfig::WORDS);
    shelf.make("p").unwrap();
    let base = shelf.config.clone();
    let limits = carousel_corpus::Limits { min_count: 2, ..Default::default() };
    let other =
        shelf.write("other.json", &Tokenizer::for_text(&TokenizerConfig::Bytes, "").unwrap().to_json());
    for (config, parts) in [
        (
            DataConfig { tokenizer: TokenizerConfig::CHARS, ..base.clone() },
            &["data.tokenizer = words", "chars"][..],
        ),
        (
            DataConfig { tokenizer: TokenizerConfig::Words(limits), ..base.clone() },
            &["data.tokenizer = words", "min_count = 2"],
        ),
        (
            DataConfig { tokenizer: TokenizerConfig::File(other), ..base.clone() },
            &["data.tokenizer", "a file"],
        ),
        (DataConfig { documents: Documents::Apart, ..base.clone() }, &["data.documents = joined", "apart"]),
        (DataConfig { valid_fraction: 0.5, ..base.clone() }, &["data.valid_fraction = 0.25", "0.5"]),
        (DataConfig { max_bytes: Some(50), ..base.clone() }, &["data.max_bytes = not set", "50"]),
        (DataConfig { test: base.train.clone(), ..base.clone() }, &["nothing of data.test", "has a text"]),
    ] {
        shelf.config = config;
        let error = shelf.open("p").unwrap_err();
        assert!(matches!(&error, CorpusError::Prepared(error) if error.is_misfit()), "{error:?}");
        for part in parts {
            assert!(error.to_string().contains(part), "{error} lacks {part:?}");
        }
    }
}

#[test]
fn another_text_is_refused_and_the_same_text_elsewhere_is_not() {
    let mut shelf = Shelf::new(TokenizerConfig::WORDS);
    shelf.make("p").unwrap();
    let a = fs::read_to_string(shelf.path("a.txt")).unwrap();
    // Same length, and another word: seen by the date, then by the hash.
    shelf.write("a.txt", &a.replacen("line 3", "lime 3", 1));
    let message = shelf.refused("p");
    assert!(message.contains("data.train") && message.contains("a.txt has changed"), "{message}");
    // Written again as it was: other dates, the same text.
    shelf.write("a.txt", &a);
    shelf.open("p").unwrap();
    // Elsewhere, and cut differently into files: the same text.
    shelf.config.train = vec![shelf.write("whole.txt", &format!("{a}one more\nlast line"))];
    shelf.open("p").unwrap();
    // A limit that does not limit changes nothing.
    shelf.config.max_bytes = Some(1 << 40);
    shelf.open("p").unwrap();
    shelf.config.train = vec![shelf.write("whole.txt", &format!("{a}one more\nlast line!"))];
    assert!(shelf.refused("p").contains("data.max_bytes"), "the key is named first");
}

#[test]
fn with_documents_apart_the_same_text_in_other_files_is_another() {
    let mut shelf = Shelf::new(TokenizerConfig::WORDS);
    shelf.config.documents = Documents::Apart;
    shelf.make("p").unwrap();
    let a = fs::read_to_string(shelf.path("a.txt")).unwrap();
    let (one, two) = a.split_at(a.len() / 2);
    shelf.config.train = vec![shelf.write("1", one), shelf.write("2", &format!("{two}one more\nlast line"))];
    let message = shelf.refused("p");
    assert!(message.contains("made from another text"), "{message}");
}

#[test]
fn a_text_that_is_gone_is_believed_only_where_that_is_asked() {
    let shelf = Shelf::new(TokenizerConfig::WORDS);
    shelf.make("p").unwrap();
    fs::remove_file(shelf.path("b.txt")).unwrap();
    assert!(matches!(shelf.open("p"), Err(CorpusError::NotFound { .. })));
    let prepared = Prepared::find(&shelf.path("p")).unwrap().unwrap();
    let opened = prepared.open(&shelf.config, true, &mut |_| {}).unwrap();
    assert_eq!(opened.absent, [Split::Train]);
}

#[test]
fn what_stands_in_the_way_is_left_alone() {
    let shelf = Shelf::new(TokenizerConfig::WORDS);
    for (name, content) in
        [("mine/notes.txt", "x"), ("broken/prepared.json", "{"), ("old/prepared.json", "{\"format\": \"0\"}")]
    {
        let path = shelf.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let folder = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let error = shelf.make(folder).unwrap_err();
        assert!(matches!(&error, CorpusError::Prepared(PreparedError::Manifest { .. })), "{error:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
}

#[test]
fn a_folder_is_replaced_as_a_whole_and_remains_are_cleared() {
    let mut shelf = Shelf::new(TokenizerConfig::WORDS);
    shelf.config.test = vec![shelf.write("test.txt", "x\n")];
    shelf.make("p").unwrap();
    // What a killed process left.
    fs::create_dir(shelf.path("p.partial")).unwrap();
    fs::write(shelf.path("p.partial/test.safetensors"), "half").unwrap();
    shelf.config.test = vec![];
    shelf.config.tokenizer = TokenizerConfig::CHARS;
    shelf.make("p").unwrap();
    let names: Vec<String> = contents(&shelf.path("p")).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["prepared.json", "tokenizer.json", "train.safetensors", "valid.safetensors"]);
    assert!(!shelf.path("p.partial").exists() && !shelf.path("p.old").exists());
    shelf.open("p").unwrap();
}

#[test]
fn two_at_once_do_not_disturb_each_other() {
    let shelf = Shelf::new(TokenizerConfig::WORDS);
    fs::create_dir(shelf.path("p.partial")).unwrap();
    let other = fs::File::open(shelf.path("p.partial")).unwrap();
    other.lock().unwrap();
    let error = shelf.make("p").unwrap_err();
    assert!(matches!(&error, CorpusError::Prepared(PreparedError::Busy { .. })), "{error:?}");
    drop(other);
    shelf.make("p").unwrap();
}

#[test]
fn a_failure_leaves_nothing_behind() {
    let mut shelf = Shelf::new(TokenizerConfig::WORDS);
    let bad = shelf.path("bad.txt");
    fs::write(&bad, [text(40_000).as_bytes(), b"\xff"].concat()).unwrap();
    shelf.config.test = vec![bad];
    assert!(matches!(shelf.make("p"), Err(CorpusError::NotUtf8 { .. })));
    assert!(!shelf.path("p").exists() && !shelf.path("p.partial").exists());
}

#[test]
fn a_shuffled_file_is_read_document_by_document() {
    let mut shelf = Shelf::new(TokenizerConfig::Bytes);
    shelf.config.documents = Documents::Apart;
    shelf.config.valid_fraction = 0.0;
    shelf.config.train = ["one\n", "two", "three\n"].map(|text| shelf.write(text.trim(), text)).to_vec();
    shelf.make("p").unwrap();
    let train = shelf.open("p").unwrap().train;
    let order = DocumentOrder::shuffled(train.document_ends().unwrap(), |_| 0);
    let tokenizer = Tokenizer::from_file(&shelf.path("p/tokenizer.json")).unwrap();
    let tokens = all(Tokens::from(train).in_order(order));
    assert_eq!(tokenizer.decode(&tokens), "two<eos>three\n<eos>one\n<eos>");
}

#[test]
fn every_window_of_a_file_is_that_of_the_tokens_in_memory() {
    let shelf = Shelf::new(TokenizerConfig::Bytes);
    shelf.make("p").unwrap();
    let opened = shelf.open("p").unwrap();
    let (memory, file) = (all(opened.train.clone()), Tokens::from(opened.train));
    let plans = [
        StreamPlan::training(memory.len(), 7, 11, 3).unwrap(),
        StreamPlan::evaluation(memory.len(), 7, 11, 3).unwrap(),
        // More streams than targets: some have none.
        StreamPlan::evaluation(memory.len(), memory.len() + 3, 2, 2).unwrap(),
    ];
    for plan in plans {
        for (window, lane) in
            (0..plan.windows()).flat_map(|window| (0..plan.lanes()).map(move |lane| (window, lane)))
        {
            let (mut inputs, mut targets) = (vec![7], vec![7]);
            plan.fill_from(&file, plan.span(window), lane, &mut inputs, &mut targets).unwrap();
            let (mut expected, mut expected_targets) = (Vec::new(), Vec::new());
            plan.fill(&memory, window, lane, &mut expected, &mut expected_targets);
            assert_eq!((inputs, targets), (expected, expected_targets), "window {window}, lane {lane}");
        }
    }
}
