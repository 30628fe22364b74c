//! Users solved for items that stay as they are.

use super::{Config, Error, Objective, Sweep, kernels, side::Side, start, sweep};
use crate::matrix::kernels::dot;
use crate::matrix::{Aligned, Dense};
use std::time::Instant;

/// The users' factors, position after position and padded, in the axes of the given items.
///
/// `config.iterations` plain half-sweeps. Each turns users and items into the axes in which it solves, so a
/// unit matrix is turned along, and in the end turns the users back.
pub(super) fn users(
    sides: (&Side<'_>, &Side<'_>),
    items: &Dense,
    config: &Config,
    on_sweep: &mut dyn FnMut(Sweep),
) -> Result<Vec<f32>, Error> {
    let (user_side, item_side) = sides;
    let (rank, dim) = (config.rank, config.rank.next_multiple_of(kernels::LANES));
    // Items without an interaction here pull all the same.
    let order = item_side.order_of_all(items.n_rows());
    let mut fixed = Aligned::new(order.len() * dim, 0f32);
    start::at(fixed.get_mut(), &order, items, dim);

    let n_users = user_side.len();
    let mut solved = vec![0f32; (n_users + dim) * dim];
    for axis in 0..dim {
        solved[(n_users + axis) * dim + axis] = 1.0;
    }
    let settings =
        sweep::Settings { rank, dim, unobserved_weight: config.unobserved_weight, relaxation: 1.0 };
    for number in 1..=config.iterations {
        let started = Instant::now();
        let Some(parts) = sweep::half(user_side, fixed.get_mut(), &mut solved, settings) else {
            return Err(Error::NotFinite { sweep: number, of: config.iterations });
        };
        let objective = Objective {
            observed: parts.observed,
            unobserved: config.unobserved_weight * parts.all,
            regularization: parts.regularization,
        };
        on_sweep(Sweep { number, of: config.iterations, elapsed: started.elapsed(), objective });
    }
    let (users, turned) = solved.split_at(n_users * dim);
    let mut back = vec![0f32; users.len()];
    for (target, user) in back.chunks_exact_mut(dim).zip(users.chunks_exact(dim)) {
        for (value, axis) in target.iter_mut().zip(turned.chunks_exact(dim)) {
            *value = dot::<f64, _>(user, axis) as f32;
        }
    }
    Ok(back)
}
