//! Numbers that must not be mistaken for one another, each with a type of its own.
//!
//! ```compile_fail
//! use carousel_proto::{Step, Term};
//! let term: Term = Step(3); // a step is not a term
//! ```

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $label:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl $name {
            /// The number after this one.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($label, " {}"), self.0)
            }
        }
    };
}

id!(
    /// A worker's session, numbered by the coordinator in the order of joining; never reused within a run's process.
    WorkerId(u64),
    "worker"
);
id!(
    /// Grows with every change of membership; a message of an older term is refused.
    Term(u64),
    "term"
);
id!(
    /// The number of optimizer updates made: step 0 is the initial state, step n is the state after n commits.
    Step(u64),
    "step"
);
id!(
    /// A lane: a fixed group of streams, the unit of assignment and of summation.
    LaneIndex(u32),
    "lane"
);
id!(
    /// A stream: one row of the batch.
    StreamIndex(u32),
    "stream"
);
