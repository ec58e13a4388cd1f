//! Rules broken on purpose: a simulation that does not catch them would show nothing.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// The coordinator commits without waiting for every acknowledgement.
    CommitEarly,
    /// Moved lanes begin with carries of zero.
    ForgetCarries,
    /// A restarted coordinator begins with the first term again.
    ReuseTerms,
    /// Workers take what is of any term.
    IgnoreTerms,
    /// Workers update with a commit whatever step their gradient is of.
    ApplyAnything,
    /// A commit is told before it is on disk.
    TellBeforeJournal,
}
