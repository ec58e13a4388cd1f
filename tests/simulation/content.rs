//! What replicas, carries and gradients are in the simulation: hashes, so that whoever computes the same thing gets the same
//! number and nobody else does. And the run where nothing happens, which every other must equal.

/// Mixes numbers into one (the finalizer of SplitMix64 over a running sum).
pub(crate) fn hash(parts: &[u64]) -> u64 {
    parts.iter().fold(0x9e37_79b9_7f4a_7c15, |sum, part| {
        let mut z = (sum ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// The replica before the first step.
pub(crate) const SEED_REPLICA: u64 = 0x5eed;
/// The carry of every lane at the start of an epoch.
pub(crate) const ZERO_CARRY: u64 = 0;

pub(crate) fn lane_gradient(step: u64, lane: u32, replica: u64, carry: u64) -> u64 {
    hash(&[1, step, u64::from(lane), replica, carry])
}

pub(crate) fn next_carry(step: u64, lane: u32, replica: u64, carry: u64) -> u64 {
    hash(&[2, step, u64::from(lane), replica, carry])
}

/// The reduced gradient: of every lane, in lane order.
pub(crate) fn reduced(step: u64, lanes: impl IntoIterator<Item = u64>) -> u64 {
    lanes.into_iter().fold(hash(&[3, step]), |sum, lane| hash(&[4, sum, lane]))
}

pub(crate) fn next_replica(step: u64, replica: u64, gradient: u64) -> u64 {
    hash(&[5, step, replica, gradient])
}

/// The state after each step of the run where nothing happens.
pub(crate) struct Quiet {
    pub replicas: Vec<u64>,
    pub gradients: Vec<u64>,
    pub carries: Vec<Vec<u64>>,
}

impl Quiet {
    pub(crate) fn new(lanes: u32, windows: u64, steps: u64) -> Self {
        let zero = vec![ZERO_CARRY; lanes as usize];
        let mut quiet =
            Self { replicas: vec![SEED_REPLICA], gradients: vec![0], carries: vec![zero.clone()] };
        for step in 1..=steps {
            let replica = quiet.replicas[step as usize - 1];
            let begins = (step - 1).is_multiple_of(windows);
            let carries = if begins { zero.clone() } else { quiet.carries[step as usize - 1].clone() };
            let lane = |lane: u32| lane_gradient(step, lane, replica, carries[lane as usize]);
            let gradient = reduced(step, (0..lanes).map(lane));
            quiet.gradients.push(gradient);
            quiet.replicas.push(next_replica(step, replica, gradient));
            let next = |lane: u32| next_carry(step, lane, replica, carries[lane as usize]);
            quiet.carries.push((0..lanes).map(next).collect());
        }
        quiet
    }
}
