//! Parquet as pyarrow writes it. Without the feature: the error that names it.

#[cfg(not(feature = "parquet"))]
#[test]
fn without_the_feature_the_error_names_it() {
    use super::{fixture, text};
    let error = text(fixture("parquet-none.parquet"), &Default::default()).unwrap_err().to_string();
    assert!(error.contains("parquet-none.parquet: this build does not read Parquet"), "{error}");
    assert!(error.contains("cargo build --release --features parquet"), "{error}");
}

#[cfg(feature = "parquet")]
mod with_feature {
    use std::fs;

    use carousel_corpus::{CorpusError, SourceOptions};

    use super::super::objects::shelf;
    use super::super::{documents, fixture, folder, pieces, text};

    const CODECS: [(&str, bool); 6] = [
        ("snappy", false),
        ("zstd", true),
        ("gzip", true),
        ("lz4", false),
        ("brotli", false),
        ("none", true),
    ];

    /// Row `i` of every file of `make_parquet.py`.
    fn row(i: usize) -> String {
        format!("row {i}: {}{}", "żółw 龍 ".repeat(i % 5), if i.is_multiple_of(3) { "\n" } else { "" })
    }

    fn rows(with_nulls: bool) -> Vec<String> {
        (0..300).filter(|i| !with_nulls || i % 7 != 3).map(row).collect()
    }

    fn column(name: &str) -> SourceOptions {
        SourceOptions { field: name.into(), ..SourceOptions::default() }
    }

    #[test]
    fn every_codec_encoding_and_page_version_gives_the_rows() {
        for (codec, nulls) in CODECS {
            let path = fixture(&format!("parquet-{codec}.parquet"));
            let found = pieces(path, &column("text")).unwrap();
            assert_eq!(documents(&found), rows(nulls), "{codec}");
        }
    }

    #[test]
    fn an_object_gives_the_rows_of_the_file() {
        let bytes = fs::read(fixture("parquet-zstd.parquet")).unwrap();
        let options = shelf(&[("s3://b/x.parquet", &bytes)]);
        assert_eq!(documents(&pieces("s3://b/x.parquet", &options).unwrap()), rows(true));
    }

    #[test]
    fn a_wrong_column_is_an_error_that_lists_those_there_are() {
        let path = fixture("parquet-snappy.parquet");
        let error = text(&path, &column("content")).unwrap_err();
        let CorpusError::BadColumn { found: None, columns, .. } = &error else { panic!("{error:?}") };
        assert_eq!(columns[..2], ["id", "text"]);
        let message = error.to_string();
        assert!(message.contains("no column \"content\" (data.field); there are: id, text, "), "{message}");
        for (name, what) in [("id", "INT64"), (&columns[2], "lists")] {
            let error = text(&path, &column(name)).unwrap_err().to_string();
            assert!(error.contains(&format!("holds {what}, expected strings")), "{error}");
        }
    }

    #[test]
    fn a_row_that_is_not_utf8_is_named() {
        let error = text(fixture("parquet-snappy.parquet"), &column("raw")).unwrap_err();
        assert!(matches!(error, CorpusError::RowNotUtf8 { row: 201, offset: 2, .. }), "{error:?}");
    }

    #[test]
    fn a_file_that_is_cut_off_or_is_none_is_an_error() {
        let bytes = fs::read(fixture("parquet-none.parquet")).unwrap();
        for length in (0..bytes.len()).step_by(97) {
            let folder = folder(&[("x.parquet", &bytes[..length])]);
            let error = text(folder.path(), &column("text")).unwrap_err();
            assert!(matches!(&error, CorpusError::Damaged { .. }), "{length}: {error:?}");
            assert!(error.to_string().contains("not a whole Parquet file"), "{error}");
        }
    }

    #[test]
    fn a_broken_connection_is_told_as_what_it_is() {
        let error = text("s3://b/x.parquet", &shelf(&[("s3://b/x.parquet", b"vanishes")])).unwrap_err();
        assert!(matches!(&error, CorpusError::Storage { .. }), "{error:?}");
    }
}
