//! Dense indices: positions in this run's sorted lists of users and items.
//!
//! `*_id` names an external id as the shop wrote it; `*_idx` names one of these. External ids are
//! sorted before they are numbered, so the same ids get the same indices on every machine.

/// A user's position in the run's list of users, sorted by external id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserIdx(pub u32);

/// An item's position in the run's catalogue, sorted by external id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemIdx(pub u32);

impl UserIdx {
    /// The index as a slice position.
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

impl ItemIdx {
    /// The index as a slice position.
    pub fn at(self) -> usize {
        self.0 as usize
    }
}
