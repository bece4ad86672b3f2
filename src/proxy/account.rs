//! What a request owes to its limits: it is charged even if another gate answers, or if the client
//! goes away while one is asked.

use std::cell::Cell;

use tokio::task::spawn_local;

use crate::policy::rate_limit::Ledger;

/// Charges that one worker makes at a time and that nobody waits for. More are not made: then a
/// flood is refused a little later.
const MOST_CHARGES: usize = 256;

thread_local! {
    static CHARGES: Cell<usize> = const { Cell::new(0) };
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Account<'p>(pub Ledger<'p>);

impl Drop for Account<'_> {
    fn drop(&mut self) {
        for owed in self.0.unsettled() {
            if let Some(place) = Place::take() {
                spawn_local(async move {
                    owed.charge().await;
                    drop(place);
                });
            }
        }
    }
}

/// One of [`MOST_CHARGES`].
struct Place(());

impl Place {
    fn take() -> Option<Self> {
        let charges = CHARGES.get();
        (charges < MOST_CHARGES).then(|| {
            CHARGES.set(charges + 1);
            Place(())
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        CHARGES.set(CHARGES.get() - 1);
    }
}
