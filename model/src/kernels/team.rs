//! A team of threads for many short phases: each time step of a layer is a phase. Not a pool: it borrows rayon's threads.
//!
//! Helpers spin between phases, because waking a thread costs more than a time step. Nobody waits for a helper to arrive: the
//! chunks of a phase are claimed, and the calling thread claims whatever is left. So a busy pool makes a team slower, never stuck,
//! and which thread computes a chunk decides nothing but time.

use std::{
    cell::UnsafeCell,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use super::Buffer;

/// Members beyond this number help nobody at the sizes trained here.
const MOST_MEMBERS: usize = 64;
const SPINS_BEFORE_YIELD: u32 = 4096;

/// Called with the member, the chunk, and the bounds of the share that it was claimed from.
type Job<'a> = dyn Fn(usize, usize, (usize, usize)) + Sync + 'a;

/// One member's share of a phase, alone on its cache lines: (phase << 32 | next chunk) and the end of the share.
#[repr(align(128))]
struct Share {
    next: AtomicU64,
    start: AtomicU32,
    end: AtomicU32,
}

/// The threads that run phases together. Made by [`with_team`].
pub(crate) struct Team {
    shares: Vec<Share>,
    phase: AtomicU32,
    done: AtomicUsize,
    finished: AtomicBool,
    poisoned: AtomicBool,
    job: UnsafeCell<Option<*const Job<'static>>>,
    running: Mutex<()>,
}

// SAFETY: `job` is written only between phases by the thread that publishes them, and read only by a member that has claimed a
// chunk of the running phase; the claim's acquire pairs with the release that published the phase.
unsafe impl Sync for Team {}

/// Runs `body` with a team of the current rayon pool's threads.
pub(crate) fn with_team<T: Send>(body: impl FnOnce(&Team) -> T + Send) -> T {
    let members = rayon::current_num_threads().clamp(1, MOST_MEMBERS);
    let team = Team::new(members);
    if members == 1 {
        return body(&team);
    }
    let mut result = None;
    rayon::scope(|scope| {
        let _finish = Finish(&team);
        for member in 1..members {
            let team = &team;
            scope.spawn(move |_| team.help(member));
        }
        result = Some(body(&team));
    });
    result.expect("the scope ran its body")
}

/// Lets the helpers go, also when the body panics.
struct Finish<'a>(&'a Team);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.finished.store(true, Ordering::Release);
    }
}

/// Counts a chunk as done, also when it panics: rayon hands the panic on at the end of the scope.
struct Done<'a>(&'a Team);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poisoned.store(true, Ordering::Relaxed);
        }
        self.0.done.fetch_add(1, Ordering::Release);
    }
}

impl Team {
    fn new(members: usize) -> Self {
        let share = |_| Share { next: AtomicU64::new(0), start: AtomicU32::new(0), end: AtomicU32::new(0) };
        Self {
            shares: (0..members).map(share).collect(),
            phase: AtomicU32::new(0),
            done: AtomicUsize::new(0),
            finished: AtomicBool::new(false),
            poisoned: AtomicBool::new(false),
            job: UnsafeCell::new(None),
            running: Mutex::new(()),
        }
    }

    /// Threads that may take part.
    pub(crate) fn members(&self) -> usize {
        self.shares.len()
    }

    /// Runs `job(member, chunk)` once for every chunk and returns when all are done. Neighbouring chunks tend to stay with one member
    /// from phase to phase, so that its cache keeps what it read.
    pub(crate) fn run(&self, chunks: usize, job: impl Fn(usize, usize) + Sync) {
        self.run_in_turn(0, chunks, job);
    }

    /// As [`Self::run`]; in odd turns every member goes through its share from the end, so that what its cache holds from the end of
    /// the last turn is used first.
    pub(crate) fn run_in_turn(&self, turn: usize, chunks: usize, job: impl Fn(usize, usize) + Sync) {
        let backwards = !turn.is_multiple_of(2);
        if self.members() == 1 || chunks <= 1 {
            (0..chunks).for_each(|chunk| job(0, if backwards { chunks - 1 - chunk } else { chunk }));
            return;
        }
        self.run_on_all(chunks, |member, chunk, (start, end)| {
            job(member, if backwards { start + end - 1 - chunk } else { chunk });
        });
    }

    fn run_on_all(&self, chunks: usize, job: impl Fn(usize, usize, (usize, usize)) + Sync) {
        let _one_phase_at_a_time = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        self.publish(chunks, &job);
        let phase = self.phase.load(Ordering::Relaxed);
        self.work(0, phase);
        let mut spins = 0;
        while self.done.load(Ordering::Acquire) < chunks {
            pause(&mut spins);
        }
        assert!(!self.poisoned.load(Ordering::Relaxed), "a chunk of this phase panicked");
    }

    /// Runs `job(member, index, piece)` once for every piece of `data`, all but the last of `len` floats.
    pub(crate) fn run_pieces(
        &self,
        data: &mut [f32],
        len: usize,
        job: impl Fn(usize, usize, &mut [f32]) + Sync,
    ) {
        let pieces = Pieces::new(data, len);
        self.run(pieces.count(), |member, index| {
            // SAFETY: `run` hands out every index once.
            job(member, index, unsafe { pieces.take(index) });
        });
    }

    fn publish(&self, chunks: usize, job: &Job<'_>) {
        let job: *const Job<'_> = job;
        // SAFETY: only the lifetime is erased. `run` returns after every claimed chunk is done, and a chunk can be claimed only
        // while its phase runs, so nobody calls the job after the borrow ends. No member reads `job` between phases.
        unsafe { *self.job.get() = Some(std::mem::transmute::<*const Job<'_>, *const Job<'static>>(job)) };
        let phase = self.phase.load(Ordering::Relaxed).wrapping_add(1);
        self.done.store(0, Ordering::Relaxed);
        let chunks = u32::try_from(chunks).expect("a phase has fewer than 2^32 chunks");
        let members = self.members() as u64;
        for (member, share) in self.shares.iter().enumerate() {
            let bound = |m: u64| u64::from(chunks) * m / members;
            share.start.store(bound(member as u64) as u32, Ordering::Relaxed);
            share.end.store(bound(member as u64 + 1) as u32, Ordering::Relaxed);
            share.next.store(u64::from(phase) << 32 | bound(member as u64), Ordering::Release);
        }
        self.phase.store(phase, Ordering::Release);
    }

    fn help(&self, member: usize) {
        let mut seen = 0;
        let mut spins = 0;
        while !self.finished.load(Ordering::Acquire) {
            let phase = self.phase.load(Ordering::Acquire);
            if phase == seen {
                pause(&mut spins);
                continue;
            }
            seen = phase;
            spins = 0;
            self.work(member, phase);
        }
    }

    /// Claims chunks of this phase, its own share first, then what others left.
    fn work(&self, member: usize, phase: u32) {
        for other in 0..self.members() {
            let share = &self.shares[(member + other) % self.members()];
            while let Some(chunk) = share.claim(phase) {
                let _done = Done(self);
                // SAFETY: the claim succeeded, so this phase is running and stays so until `_done` is dropped; the publisher wrote
                // the job before the claim's counter, and keeps it alive until then.
                if let Some(job) = unsafe { *self.job.get() } {
                    let of = (share.start.load(Ordering::Relaxed), share.end.load(Ordering::Relaxed));
                    // SAFETY: as above: the job is alive until `_done` is dropped.
                    unsafe { (*job)(member, chunk, (of.0 as usize, of.1 as usize)) };
                }
            }
        }
    }
}

impl Share {
    fn claim(&self, phase: u32) -> Option<usize> {
        let mut current = self.next.load(Ordering::Acquire);
        loop {
            let (of, chunk) = ((current >> 32) as u32, current as u32);
            if of != phase || chunk >= self.end.load(Ordering::Relaxed) {
                return None;
            }
            let claimed =
                self.next.compare_exchange_weak(current, current + 1, Ordering::AcqRel, Ordering::Acquire);
            match claimed {
                Ok(_) => return Some(chunk as usize),
                Err(now) => current = now,
            }
        }
    }
}

fn pause(spins: &mut u32) {
    *spins += 1;
    if *spins < SPINS_BEFORE_YIELD { std::hint::spin_loop() } else { std::thread::yield_now() }
}

/// A slice cut into pieces for different threads.
pub(super) struct Pieces<'a, T = f32> {
    start: *mut T,
    total: usize,
    len: usize,
    data: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: pieces do not overlap, and each is taken once at a time.
unsafe impl<T: Send> Sync for Pieces<'_, T> {}

impl<'a, T> Pieces<'a, T> {
    pub(super) fn new(data: &'a mut [T], len: usize) -> Self {
        assert!(len > 0, "a piece has at least one item");
        Self { start: data.as_mut_ptr(), total: data.len(), len, data: std::marker::PhantomData }
    }

    pub(super) fn count(&self) -> usize {
        self.total.div_ceil(self.len)
    }

    /// Where a piece begins, for threads that write different parts of one piece.
    ///
    /// # Safety
    /// No two threads touch one item.
    pub(super) unsafe fn address(&self, index: usize) -> *mut T {
        assert!(index < self.count(), "piece {index}");
        self.start.wrapping_add(index * self.len)
    }

    /// # Safety
    /// Nobody else holds the piece of this index.
    #[allow(
        clippy::mut_from_ref,
        reason = "the pieces are disjoint, and the caller promises one holder each"
    )]
    pub(super) unsafe fn take(&self, index: usize) -> &mut [T] {
        let from = index * self.len;
        assert!(from < self.total, "piece {index}");
        let len = self.len.min(self.total - from);
        // SAFETY: inside the borrowed slice; one holder by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), len) }
    }
}

/// A buffer for each member, kept between phases.
pub(crate) struct Scratch(Vec<Mutex<Buffer>>);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self((0..MOST_MEMBERS).map(|_| Mutex::new(Buffer::default())).collect())
    }

    /// The member's buffer, at least `len` floats long, with whatever it held before.
    pub(crate) fn of(&self, member: usize, len: usize) -> MutexGuard<'_, Buffer> {
        let mut buffer = self.0[member].lock().unwrap_or_else(PoisonError::into_inner);
        buffer.grow(len);
        buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_runs_once_in_every_phase() {
        for threads in [1, 2, 3, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let counts: Vec<AtomicUsize> = (0..37).map(|_| AtomicUsize::new(0)).collect();
            pool.install(|| {
                with_team(|team| {
                    for phase in 1..=500 {
                        team.run_in_turn(phase, 37, |_, chunk| {
                            counts[chunk].fetch_add(1, Ordering::Relaxed);
                        });
                        assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == phase));
                    }
                })
            });
        }
    }

    #[test]
    fn a_panic_in_a_chunk_reaches_the_caller() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let work = || pool.install(|| with_team(|team| team.run(8, |_, chunk| assert_ne!(chunk, 5))));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        assert!(caught.is_err());
    }
}
