//! Quantities of a plan as a user writes them: worker counts, bandwidths, latencies, rates. Text in, numbers with their
//! units out; nothing is computed here.

use std::str::FromStr;

/// Bits on a wire are counted in tens: 1 Gbit is 10^9.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct BytesPerSecond(pub f64);

/// Time, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(super) struct Seconds(pub f64);

/// Floating-point operations a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Flops(pub f64);

/// Worker counts, ascending, none twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counts(pub Vec<u32>);

/// The most workers that are planned for.
const MOST_WORKERS: u32 = 100_000;
/// The most lines of a plan.
const MOST_COUNTS: usize = 1000;

/// A number above 0 and its unit, which is one of these.
fn quantity(text: &str, units: &[(&str, f64)], expected: &str) -> Result<f64, String> {
    let refused = || format!("found {text:?}, expected {expected}");
    let unit = |(name, factor): &(&str, f64)| Some((text.strip_suffix(name)?, *factor));
    let mut fitting = units.iter().filter_map(unit).filter_map(|(number, factor)| {
        let value = number.trim().parse::<f64>().ok()? * factor;
        (value.is_finite() && value >= 0.0).then_some(value)
    });
    fitting.next().ok_or_else(refused)
}

impl FromStr for BytesPerSecond {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [("Gbit", 1e9), ("Mbit", 1e6), ("kbit", 1e3)];
        let expected = "a bandwidth above 0, as 10Gbit, 100Mbit or 500kbit";
        let bits = quantity(text, &units, expected)?;
        if bits > 0.0 { Ok(Self(bits / 8.0)) } else { Err(format!("found {text:?}, expected {expected}")) }
    }
}

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)];
        quantity(text, &units, "a time, as 50us, 0.2ms or 1s").map(Self)
    }
}

impl FromStr for Flops {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "operations a second above 0, as 40G or 4e10";
        let rate = quantity(text, &[("T", 1e12), ("G", 1e9), ("M", 1e6), ("", 1.0)], expected)?;
        if rate > 0.0 { Ok(Self(rate)) } else { Err(format!("found {text:?}, expected {expected}")) }
    }
}

impl FromStr for Counts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut counts = Vec::new();
        let mut parts = text.split(',').map(str::trim);
        while let Some(part) = parts.next() {
            match part {
                "..." | "…" => series(&mut counts, count(parts.next().unwrap_or_default())?)?,
                _ => range(&mut counts, part)?,
            }
            if counts.len() > MOST_COUNTS {
                return Err(format!("found more than {MOST_COUNTS} counts, expected at most that many"));
            }
        }
        counts.sort_unstable();
        counts.dedup();
        Ok(Self(counts))
    }
}

fn count(text: &str) -> Result<u32, String> {
    let found = text.parse().ok().filter(|n| (1..=MOST_WORKERS).contains(n));
    let expected = "worker counts, as 1,2,4,...,64 or 1-8, each from 1 to";
    found.ok_or_else(|| format!("found {text:?}, expected {expected} {MOST_WORKERS}"))
}

/// One count, or `first-last`.
fn range(counts: &mut Vec<u32>, text: &str) -> Result<(), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (count(first)?, count(last)?);
    if first > last {
        return Err(format!("found {text:?}, expected a range that ascends"));
    }
    counts.extend((first..=last).take(MOST_COUNTS + 1));
    Ok(())
}

/// Goes on as the last two counts do, by a factor where the later is a multiple of the earlier, and ends with `last`.
fn series(counts: &mut Vec<u32>, last: u32) -> Result<(), String> {
    let &[.., before, latest] = counts.as_slice() else {
        return Err("found ... after fewer than two counts, expected two to go on from".into());
    };
    if before >= latest || latest > last {
        return Err(format!("found {before},{latest},...,{last}, expected counts that ascend"));
    }
    let doubles = latest % before == 0 && before > 1 || (before, latest) == (1, 2);
    let next = |n: u32| if doubles { n.saturating_mul(latest / before) } else { n + (latest - before) };
    let rest = std::iter::successors(Some(next(latest)), |n| Some(next(*n))).take_while(|n| *n < last);
    counts.extend(rest.take(MOST_COUNTS));
    counts.push(last);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(text: &str) -> Vec<u32> {
        text.parse::<Counts>().unwrap().0
    }

    #[test]
    fn series_lists_and_ranges_are_read() {
        assert_eq!(counts("1,2,4,...,20"), [1, 2, 4, 8, 16, 20]);
        assert_eq!(counts("10,15,...,30"), [10, 15, 20, 25, 30]);
        assert_eq!(counts("8,1-3,2"), [1, 2, 3, 8]);
        assert_eq!(counts("1,2,4,...,1000").last(), Some(&1000));
    }

    #[test]
    fn what_is_no_count_is_refused_with_what_was_found() {
        for text in ["", "0", "1,...,8", "4,2,...,8", "1,2,...", "3-1", "100001", "1-5000", "two"] {
            let refusal = text.parse::<Counts>().unwrap_err();
            assert!(refusal.contains("found") && refusal.contains("expected"), "{text}: {refusal}");
        }
    }

    #[test]
    fn quantities_carry_their_units() {
        assert_eq!("1Gbit".parse(), Ok(BytesPerSecond(1.25e8)));
        assert_eq!("100 Mbit".parse(), Ok(BytesPerSecond(1.25e7)));
        assert_eq!("0.5s".parse(), Ok(Seconds(0.5)));
        assert_eq!("20ms".parse::<Seconds>().unwrap().0, 20.0 * 1e-3);
        assert_eq!("40G".parse(), Ok(Flops(4e10)));
        assert_eq!("4e10".parse(), Ok(Flops(4e10)));
        for text in ["1", "Gbit", "-1Gbit", "0Gbit", "infGbit"] {
            assert!(text.parse::<BytesPerSecond>().is_err(), "{text}");
        }
        assert!("0".parse::<Flops>().is_err() && "5".parse::<Seconds>().is_err());
    }
}
