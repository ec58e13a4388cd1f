//! What can go wrong between a run and its bucket, by what its owner would do about it.

use std::io;
use std::path::PathBuf;

use super::head::Holder;
use super::store::StoreError;

/// Why a run could not be taken, mirrored or fetched.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The store.
    #[error("{address}: {source}")]
    Store {
        /// The run's address.
        address: String,
        /// What went wrong.
        source: StoreError,
    },
    /// Another coordinator works on the run.
    #[error(
        "{address}: another coordinator works on this run: process {} on {}, since {}; end it, or wait until it is gone",
        .holder.process, .holder.host, utc(.holder.since)
    )]
    Held {
        /// The run's address.
        address: String,
        /// Who.
        holder: Box<Holder>,
    },
    /// Another coordinator has taken the run over: this one was silent too long.
    #[error("{address}: this run was taken over by {by}; nothing more is written to the bucket")]
    Lost {
        /// The run's address.
        address: String,
        /// Who.
        by: String,
    },
    /// There is no run.
    #[error("{address}: there is no run here; start one without --resume")]
    NoRun {
        /// The address.
        address: String,
    },
    /// There is a run.
    #[error("{address}: there is a run here; go on with it by --resume, or name another address by --run")]
    Exists {
        /// The address.
        address: String,
    },
    /// An object is not what was written.
    #[error("{address}/{key}: found {found}, expected {expected}")]
    Damaged {
        /// The run's address.
        address: String,
        /// The object.
        key: String,
        /// What there is.
        found: String,
        /// What there should be.
        expected: String,
    },
    /// A local file.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The run ended, and its last state did not get up in time.
    #[error(
        "{address}: the end of the run is not in the bucket: {problem}; it is whole in {folder}: run again with --resume to upload it"
    )]
    Unfinished {
        /// The run's address.
        address: String,
        /// The local folder.
        folder: PathBuf,
        /// What went wrong at last.
        problem: String,
    },
}

impl MirrorError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// Seconds since 1970 as people write them (civil calendar after H. Hinnant, "chrono-compatible low-level date algorithms").
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_do() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_827_696), "2000-02-29 12:34:56 UTC");
    }
}
