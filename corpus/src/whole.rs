//! Files that are read whole, refused by their size before they are: configurations and what describes tokens. Texts are
//! never read whole, and token files not here.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::{Storage, is_url};

/// The text of a file of at most `most` bytes.
///
/// # Errors
/// [`io::ErrorKind::FileTooLarge`] with both sizes, before anything is read where the system knows the size; else as
/// [`std::fs::read_to_string`].
pub fn read_whole(path: &Path, most: u64) -> io::Result<String> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    if length > most {
        return Err(too_large(&length.to_string(), most));
    }
    up_to(most, file)
}

/// The same, and of an object where the path is an address.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] when there is no such object; what the storage says is the source of others.
pub(crate) fn read_whole_with(path: &Path, most: u64, storage: &dyn Storage) -> io::Result<String> {
    let Some(url) = path.to_str().filter(|text| is_url(text)) else { return read_whole(path, most) };
    let object = storage.find(url).map_err(io::Error::other)?.ok_or(io::ErrorKind::NotFound)?;
    match object.bytes {
        Some(length) if length > most => Err(too_large(&length.to_string(), most)),
        _ => up_to(most, storage.open(&object, 0..u64::MAX).map_err(io::Error::other)?),
    }
}

fn up_to(most: u64, source: impl Read) -> io::Result<String> {
    // A pipe has no size, and a file may grow.
    let mut text = String::new();
    source.take(most + 1).read_to_string(&mut text)?;
    if text.len() as u64 > most { Err(too_large("more", most)) } else { Ok(text) }
}

fn too_large(found: &str, most: u64) -> io::Error {
    let problem = format!("found {found} bytes, expected at most {most}");
    io::Error::new(io::ErrorKind::FileTooLarge, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_over_the_bound_is_refused_and_one_at_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.toml");
        std::fs::write(&path, "seed = 3").unwrap();
        assert_eq!(read_whole(&path, 8).unwrap(), "seed = 3");
        let refused = read_whole(&path, 7).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(refused.to_string(), "found 8 bytes, expected at most 7");
        // A terabyte that takes no room: reading it would not end.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let refused = read_whole(&path, 1 << 20).unwrap_err();
        assert!(refused.to_string().starts_with("found 1099511627776 bytes"), "{refused}");
    }

    #[test]
    fn what_has_no_size_is_read_no_further_than_the_bound() {
        let refused = read_whole(Path::new("/dev/zero"), 1 << 16).unwrap_err();
        assert!(refused.to_string().starts_with("found more bytes, expected at most 65536"), "{refused}");
    }
}
