//! Which checkpoints stay: a pure decision over what stands in the folder. It removes nothing; `store` does.

/// A checkpoint that stands in the folder and whose `state.json` can be read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Standing {
    /// Its step.
    pub step: u64,
    /// The loss of the validation that the schedule asked for after this step, nats a token.
    pub valid_loss: Option<f64>,
}

/// The checkpoint of the lowest validation loss, the earliest of equals; `None` when none was validated.
pub(crate) fn best(standing: &[Standing]) -> Option<u64> {
    let validated = standing.iter().filter_map(|s| s.valid_loss.filter(|l| !l.is_nan()).map(|l| (l, s.step)));
    validated.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))).map(|(_, step)| step)
}

/// The steps that may go when `written` has just been made: those older than the `keep` newest whole ones. `steps` are
/// all that stand, in any order. Never among them: `written`, which `latest` names, and the best. With `keep` of 0, or
/// fewer whole ones than that, everything stays; `is_whole` is asked from the newest on, and no more often than needed.
pub(crate) fn outlived(
    steps: &[u64],
    keep: u64,
    (written, best): (u64, Option<u64>),
    mut is_whole: impl FnMut(u64) -> bool,
) -> Vec<u64> {
    let mut descending = steps.to_vec();
    descending.sort_unstable_by(|a, b| b.cmp(a));
    let mut whole = 0;
    let newest = descending.iter().take_while(|step| {
        let needed = whole < keep;
        whole += u64::from(needed && is_whole(**step));
        needed
    });
    let newest = newest.count();
    if keep == 0 || whole < keep {
        return Vec::new();
    }
    descending.split_off(newest).into_iter().filter(|s| *s != written && Some(*s) != best).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stay_and_the_best_and_the_one_just_written() {
        let going = |keep, written, best| outlived(&[20, 40, 60, 80, 100], keep, (written, best), |_| true);
        assert_eq!(going(0, 100, None), [0; 0], "0 keeps all");
        assert_eq!(going(2, 100, None), [60, 40, 20]);
        assert_eq!(going(2, 100, Some(40)), [60, 20]);
        assert_eq!(going(5, 100, None), [0; 0]);
        assert_eq!(going(9, 100, None), [0; 0]);
        assert_eq!(going(2, 20, None), [60, 40], "a run that went back has just written step 20");
    }

    #[test]
    fn what_a_reader_needs_when_newer_ones_are_damaged_stays() {
        let going = |damaged: &[u64]| {
            outlived(&[20, 40, 60, 80, 100], 2, (100, None), |step| !damaged.contains(&step))
        };
        assert_eq!(going(&[80]), [40, 20], "100 and 60 are two whole ones");
        assert_eq!(going(&[80, 60, 40]), [0; 0], "100 and 20");
        assert_eq!(going(&[80, 60, 40, 20]), [0; 0], "one whole one is too few to remove anything");
    }

    #[test]
    fn only_as_many_are_read_as_are_needed() {
        let mut asked = Vec::new();
        outlived(&[1, 2, 3, 4], 2, (4, None), |step| {
            asked.push(step);
            true
        });
        assert_eq!(asked, [4, 3]);
    }

    #[test]
    fn the_best_has_the_lowest_loss_and_came_first() {
        let of = |losses: &[Option<f64>]| {
            let standing = losses.iter().zip(1..).map(|(loss, step)| Standing { step, valid_loss: *loss });
            best(&standing.collect::<Vec<_>>())
        };
        assert_eq!(of(&[None, Some(2.0), Some(1.5), Some(1.5), Some(1.75)]), Some(3));
        assert_eq!(of(&[Some(f64::NAN), Some(2.0)]), Some(2));
        assert_eq!(of(&[None, None]), None);
    }
}
