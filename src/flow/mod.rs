//! Backpressure: which publishers wait for which subscribers, and the limit on bytes in progress.

mod budget;
mod waits;

pub(crate) use self::{
    budget::{Budget, BudgetShare},
    waits::Waits,
};
