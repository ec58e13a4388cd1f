//! How an epoch's time steps are cut into windows: all of one length, or of random lengths (Merity, Keskar, Socher,
//! "Regularizing and optimizing LSTM language models", ICLR 2018, section 5). A length is a function of seed, epoch and the
//! window's place, so that everybody agrees on it without asking. Pure arithmetic: holds no tokens.

use crate::philox::philox4x32;

/// One window of every stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Time steps of a stream before it.
    pub start: u64,
    /// Its time steps, at least 1.
    pub steps: u32,
}

/// Windows of random lengths: with `probability` about the configured window, else about half of it; normal about that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomWindow {
    /// How often the whole window is the mean, in [0, 1].
    pub probability: f64,
    /// Standard deviation, in time steps.
    pub deviation: f64,
    /// The shortest, at least 1 (but for what an epoch's end leaves).
    pub minimum: u32,
    /// The run's seed.
    pub seed: u64,
}

/// The lengths of a run's windows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowLengths {
    /// The configured window, in time steps.
    pub window: u32,
    /// `None`: every window has that length.
    pub random: Option<RandomWindow>,
}

/// The counter's last word, which no other use of the seed has.
const PURPOSE: u32 = u32::from_be_bytes(*b"WIND");

impl WindowLengths {
    /// No window is longer: four standard deviations beyond the configured one, where lengths are random.
    pub fn longest(&self) -> u32 {
        let beyond = |random: &RandomWindow| self.window.saturating_add((4.0 * random.deviation) as u32);
        let random = self.random.as_ref();
        random.map_or(self.window, |random| beyond(random).max(random.minimum))
    }

    /// The windows of an epoch (counted from 1) in which every stream reads `steps` time steps, in order. The last one takes
    /// what is left.
    pub fn of_epoch(&self, epoch: u64, steps: u64) -> impl Iterator<Item = Span> {
        let (lengths, mut start, mut index) = (*self, 0, 0);
        std::iter::from_fn(move || {
            let left = steps.checked_sub(start).filter(|left| *left > 0)?;
            let length = lengths.length(epoch, index).min(u32::try_from(left).unwrap_or(u32::MAX));
            let span = Span { start, steps: length };
            (start, index) = (start + u64::from(length), index + 1);
            Some(span)
        })
    }

    fn length(&self, epoch: u64, index: u32) -> u32 {
        let Some(random) = &self.random else { return self.window };
        let counter = [index, epoch as u32, (epoch >> 32) as u32, PURPOSE];
        let [whole, u, v, _] = philox4x32(counter, [random.seed as u32, (random.seed >> 32) as u32]);
        let unit = |word: u32| f64::from(word) / 4_294_967_296.0;
        let window = f64::from(self.window);
        let mean = if unit(whole) < random.probability { window } else { window / 2.0 };
        let length = mean + random.deviation * normal(unit(u), unit(v));
        (length.max(f64::from(random.minimum)) as u32).clamp(1, self.longest())
    }
}

/// Box and Muller 1958: a normal number from two uniform ones in [0, 1). The functions are not the platform's.
fn normal(u: f64, v: f64) -> f64 {
    (-2.0 * libm::log(1.0 - u)).sqrt() * libm::cos(std::f64::consts::TAU * v)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(seed: u64) -> WindowLengths {
        let random = RandomWindow { probability: 0.75, deviation: 5.0, minimum: 5, seed };
        WindowLengths { window: 70, random: Some(random) }
    }

    fn lengths(of: &WindowLengths, epoch: u64, steps: u64) -> Vec<u32> {
        of.of_epoch(epoch, steps).map(|span| span.steps).collect()
    }

    #[test]
    fn windows_of_one_length_follow_each_other() {
        let even = WindowLengths { window: 3, random: None };
        let spans: Vec<Span> = even.of_epoch(9, 8).collect();
        let expected = [(0, 3), (3, 3), (6, 2)].map(|(start, steps)| Span { start, steps });
        assert_eq!(spans, expected);
        assert_eq!((even.longest(), even.of_epoch(1, 0).count()), (3, 0));
    }

    #[test]
    fn random_windows_cover_an_epoch_without_gap() {
        for epoch in 1..=20 {
            let mut next = 0;
            for span in random(7).of_epoch(epoch, 1000) {
                assert_eq!(span.start, next);
                assert!((1..=90).contains(&span.steps), "{span:?}");
                next += u64::from(span.steps);
                assert!(span.steps >= 5 || next == 1000, "only the last is shorter than the least: {span:?}");
            }
            assert_eq!(next, 1000);
        }
    }

    #[test]
    fn lengths_are_a_function_of_seed_epoch_and_place() {
        assert_eq!(lengths(&random(7), 3, 5000), lengths(&random(7), 3, 5000));
        assert_ne!(lengths(&random(7), 3, 5000), lengths(&random(7), 4, 5000), "another epoch");
        assert_ne!(lengths(&random(7), 3, 5000), lengths(&random(8), 3, 5000), "another seed");
        let (short, long) = (lengths(&random(7), 3, 3000), lengths(&random(7), 3, 5000));
        assert_eq!(short[..short.len() - 1], long[..short.len() - 1], "not of the text's length");
    }

    /// Of 20,000 windows three quarters lie about 70 and a quarter about 35, each with a deviation of 5.
    #[test]
    fn lengths_are_spread_as_configured() {
        let lengths = lengths(&random(1), 1, 20_000 * 61);
        let about = |mean: f64| {
            let near = lengths.iter().map(|l| f64::from(*l) + 0.5).filter(|l| (l - mean).abs() < 17.5);
            let near: Vec<f64> = near.collect();
            let count = near.len() as f64;
            let center = near.iter().sum::<f64>() / count;
            let deviation = (near.iter().map(|l| (l - center).powi(2)).sum::<f64>() / count).sqrt();
            assert!((center - mean).abs() < 0.3 && (deviation - 5.0).abs() < 0.3, "{center} {deviation}");
            count / lengths.len() as f64
        };
        assert!((about(70.0) - 0.75).abs() < 0.01);
        assert!((about(35.0) - 0.25).abs() < 0.01);
    }

    /// Wide and short: both bounds hold.
    #[test]
    fn lengths_keep_their_bounds() {
        let random = RandomWindow { probability: 0.5, deviation: 8.0, minimum: 6, seed: 3 };
        let wide = WindowLengths { window: 10, random: Some(random) };
        let mut lengths = lengths(&wide, 1, 100_000);
        lengths.pop();
        let bounds = (lengths.iter().min().copied(), lengths.iter().max().copied());
        assert_eq!(wide.longest(), 42);
        assert_eq!(bounds.0, Some(6));
        assert!(bounds.1.is_some_and(|most| (30..=42).contains(&most)), "{bounds:?}");
    }
}
