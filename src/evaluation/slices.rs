//! Which users, and which part of their truths, a metric is a mean over.

use std::collections::BTreeMap;
use std::fmt;

use arrow::array::{Array, StringArray};
use serde::{Deserialize, Serialize};

use super::{Error, Inputs};

/// A column of the items' or users' input that metrics are split by, written `items.brand`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String", into = "String")]
pub struct Attribute {
    /// Whose it is.
    pub of: Side,
    /// Its name.
    pub column: String,
}

/// What a slice selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Of the truth, the items that have a value.
    Items,
    /// The users who have it.
    Users,
}

/// What every item or user has of an attribute, by index; past the end there is nothing.
pub struct Values {
    /// Which attribute.
    pub attribute: Attribute,
    /// Its values as text.
    pub values: StringArray,
}

/// The truths of some users, by their position among the test users.
pub(super) struct Slice {
    pub(super) name: String,
    /// Ascending item indices; `None` leaves the user out.
    pub(super) truths: Vec<Option<Vec<u32>>>,
}

/// Every test user: told however few they are, as what everybody likes is.
const ALL: &str = "all";
/// Values of an attribute that have a slice of their own.
const MOST_VALUES: usize = 20;
/// All values beyond those.
const OTHER: &str = "other";
/// No value.
const NONE: &str = "none";

impl TryFrom<String> for Attribute {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        let sides = [("items.", Side::Items), ("users.", Side::Users)];
        let found = sides.into_iter().find_map(|(prefix, of)| Some((of, text.strip_prefix(prefix)?)));
        match found.filter(|(_, column)| !column.is_empty()) {
            Some((of, column)) => Ok(Self { of, column: column.to_owned() }),
            None => Err(Error::Slice {
                expected: "a column as `items.COLUMN` or `users.COLUMN`".to_owned(),
                found: text,
            }),
        }
    }
}

impl From<Attribute> for String {
    fn from(attribute: Attribute) -> Self {
        attribute.to_string()
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.of {
            Side::Items => "items",
            Side::Users => "users",
        };
        write!(f, "{side}.{}", self.column)
    }
}

/// The slices, and how many more there are of too few users to be told.
pub(super) fn slices(inputs: &Inputs) -> (Vec<Slice>, usize) {
    let kept = |name: &str, keep: &dyn Fn(u32, u32) -> bool| -> Slice {
        let truth_of = |user: &u32| {
            let (items, _) = inputs.truth.row(*user as usize);
            let items: Vec<u32> = items.iter().copied().filter(|item| keep(*user, *item)).collect();
            (!items.is_empty()).then_some(items)
        };
        Slice { name: name.to_owned(), truths: inputs.users.iter().map(truth_of).collect() }
    };
    let seen = |user: u32, item: u32| inputs.seen.row(user as usize).0.binary_search(&item).is_ok();
    let mut slices = vec![
        kept(ALL, &|_, _| true),
        kept("new", &|user, item| !seen(user, item)),
        kept("repeat", &seen),
        kept("warm_users", &|user, _| !inputs.seen.row(user as usize).0.is_empty()),
        kept("warm_users_new", &|user, item| {
            !inputs.seen.row(user as usize).0.is_empty() && !seen(user, item)
        }),
        kept("cold_users", &|user, _| inputs.seen.row(user as usize).0.is_empty()),
        kept("cold_items", &|_, item| inputs.popularity.get(item as usize).is_none_or(|users| *users == 0)),
    ];
    for (code, name) in inputs.segment_names.iter().enumerate() {
        let in_segment = |user: u32, _| inputs.segments[user as usize] as usize == code;
        slices.push(kept(&format!("segment={name}"), &in_segment));
    }
    slices.extend(inputs.attributes.iter().flat_map(|values| by_value(inputs, values)));
    let n_users = |slice: &Slice| slice.truths.iter().flatten().count();
    slices.retain(|slice| n_users(slice) > 0);
    let n_slices = slices.len();
    slices.retain(|slice| slice.name == ALL || n_users(slice) >= inputs.min_users as usize);
    let withheld = n_slices - slices.len();
    (slices, withheld)
}

/// A slice for each of the most frequent values, for all others, and for none. A value that is itself
/// called `other` or `none` belongs to the slice of that name.
fn by_value(inputs: &Inputs, values: &Values) -> Vec<Slice> {
    let value = |user: u32, item: u32| {
        let at = match values.attribute.of {
            Side::Items => item as usize,
            Side::Users => user as usize,
        };
        let is_there = at < values.values.len() && values.values.is_valid(at);
        if is_there { values.values.value(at) } else { NONE }
    };
    // Users count once, items as often as somebody turned to them.
    let counted = match values.attribute.of {
        Side::Items => usize::MAX,
        Side::Users => 1,
    };
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for user in inputs.users {
        for item in inputs.truth.row(*user as usize).0.iter().take(counted) {
            *counts.entry(value(*user, *item)).or_default() += 1;
        }
    }
    let mut names: Vec<(&str, usize)> =
        counts.into_iter().filter(|(name, _)| ![OTHER, NONE].contains(name)).collect();
    names.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let mut names: Vec<&str> = names.into_iter().take(MOST_VALUES).map(|(name, _)| name).collect();
    names.extend([OTHER, NONE]);

    let other = names.len() - 2;
    let places: BTreeMap<&str, usize> = names.iter().enumerate().map(|(at, name)| (*name, at)).collect();
    let empty = |name: &&str| Slice {
        name: format!("{}={name}", values.attribute),
        truths: vec![None; inputs.users.len()],
    };
    let mut slices: Vec<Slice> = names.iter().map(empty).collect();
    for (at, user) in inputs.users.iter().enumerate() {
        for item in inputs.truth.row(*user as usize).0 {
            let place = places.get(value(*user, *item)).copied().unwrap_or(other);
            slices[place].truths[at].get_or_insert_default().push(*item);
        }
    }
    slices
}
