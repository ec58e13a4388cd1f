//! TensorBoard event files: scalars as `Event` messages (tensorflow/core/util/event.proto) in TFRecord framing
//! (length, masked CRC-32C of the length, data, masked CRC-32C of the data). Write-only.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use prost::Message;

use crate::append::{AppendFile, Appended};
use crate::storage::Storage;

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, tag = "2")]
    simple_value: f32,
}

/// An event file being written.
#[derive(Debug)]
pub(crate) struct EventFile {
    out: AppendFile,
}

impl EventFile {
    /// Starts a new file in `folder`; `wall_time` (seconds since 1970) becomes part of its name.
    pub(crate) fn create(folder: &Path, wall_time: f64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let name = format!("events.out.tfevents.{:010}.carousel.{}", wall_time as u64, std::process::id());
        let mut file = File::create(folder.join(name))?;
        let version = Event { wall_time, file_version: Some("brain.Event:2".into()), ..Event::default() };
        let version = record(&version);
        file.write_at(&version, 0)?;
        Ok(Self { out: AppendFile::new(file, version.len() as u64) })
    }

    /// Writes the scalars of a step.
    pub(crate) fn scalars(&mut self, wall_time: f64, step: u64, scalars: &[(&str, f64)]) -> Appended {
        let value =
            scalars.iter().map(|(tag, v)| Value { tag: (*tag).into(), simple_value: *v as f32 }).collect();
        let event =
            Event { wall_time, step: step as i64, summary: Some(Summary { value }), ..Event::default() };
        self.out.append(record(&event))
    }
}

fn record(event: &Event) -> Vec<u8> {
    let data = event.encode_to_vec();
    let length = (data.len() as u64).to_le_bytes();
    let mut framed = Vec::with_capacity(data.len() + 16);
    framed.extend(length);
    framed.extend(masked_crc(&length).to_le_bytes());
    framed.extend(&data);
    framed.extend(masked_crc(&data).to_le_bytes());
    framed
}

/// TFRecord's mask: rotated right by 15 bits, plus a constant (tensorflow/core/lib/hash/crc32c.h).
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header event as TensorFlow itself writes it for wall time 1.0, field by field.
    #[test]
    fn a_record_is_framed_as_tensorflow_frames_it() {
        let folder = tempfile::tempdir().unwrap();
        EventFile::create(folder.path(), 1.0).unwrap();
        let path = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let bytes = fs::read(path).unwrap();
        assert_eq!(bytes[..8], 24u64.to_le_bytes());
        let data = &bytes[12..36];
        assert_eq!(data[..9], [0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f], "field 1, 1.0 as a double");
        assert_eq!(&data[9..], b"\x1a\x0dbrain.Event:2");
        assert_eq!(bytes[36..], masked_crc(data).to_le_bytes());
        assert_eq!(bytes.len(), 40);
        // RFC 3720 appendix B.4: the CRC-32C of 32 zero bytes is 0x8a9136aa.
        assert_eq!(masked_crc(&[0; 32]), 0x8a91_36aau32.rotate_right(15).wrapping_add(0xa282_ead8));
    }
}
