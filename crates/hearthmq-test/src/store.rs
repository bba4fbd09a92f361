//! Layers above a store: a stand-in writes the methods in which it differs, and takes the others
//! from the store below it.

/// Implements methods of `Store`, named after `=>`, by those of the store below.
///
/// ```ignore
/// impl Store for Slow {
///     hearthmq_test::from_below!(|this| &*this.store => sync bounds sessions retained);
///     fn apply(…) { … }
/// }
/// ```
#[macro_export]
macro_rules! from_below {
    (|$this:ident| $below:expr => $($method:ident)*) => {
        $($crate::from_below!(@ $method $this $below);)*
    };
    (@ apply $this:ident $below:expr) => {
        fn apply(
            &self,
            changes: &[::hearthmq::store::Change],
            durability: ::hearthmq::store::Durability,
        ) -> Result<(), ::hearthmq::store::StoreError> {
            let $this = self;
            ::hearthmq::store::Store::apply($below, changes, durability)
        }
    };
    (@ sync $this:ident $below:expr) => {
        fn sync(&self) -> Result<(), ::hearthmq::store::StoreError> {
            let $this = self;
            ::hearthmq::store::Store::sync($below)
        }
    };
    (@ bounds $this:ident $below:expr) => {
        fn bounds(&self) -> Result<::hearthmq::store::Bounds, ::hearthmq::store::StoreError> {
            let $this = self;
            ::hearthmq::store::Store::bounds($below)
        }
    };
    (@ sessions $this:ident $below:expr) => {
        fn sessions(
            &self,
            each: &mut dyn FnMut(::hearthmq::store::StoredSession),
        ) -> Result<(), ::hearthmq::store::StoreError> {
            let $this = self;
            ::hearthmq::store::Store::sessions($below, each)
        }
    };
    (@ retained $this:ident $below:expr) => {
        fn retained(
            &self,
            each: &mut dyn FnMut(::hearthmq::store::StoredRetained),
        ) -> Result<(), ::hearthmq::store::StoreError> {
            let $this = self;
            ::hearthmq::store::Store::retained($below, each)
        }
    };
    (@ logins $this:ident $below:expr) => {
        fn logins(
            &self,
            each: &mut dyn FnMut(::hearthmq::store::LoginKey, ::hearthmq::mqtt::Timestamp),
        ) -> Result<(), ::hearthmq::store::StoreError> {
            let $this = self;
            ::hearthmq::store::Store::logins($below, each)
        }
    };
    (@ records $this:ident $below:expr) => {
        fn records(
            &self,
            each: &mut dyn FnMut(::hearthmq::store::RecordKey, ::hearthmq::store::Record),
        ) -> Result<(), ::hearthmq::store::StoreError> {
            let $this = self;
            ::hearthmq::store::Store::records($below, each)
        }
    };
    (@ histories $this:ident $below:expr) => {
        fn history(
            &self,
            client_id: &str,
        ) -> Result<Option<::hearthmq::store::ClientHistory>, ::hearthmq::store::StoreError> {
            let $this = self;
            ::hearthmq::store::Store::history($below, client_id)
        }
        fn histories(
            &self,
            each: &mut dyn FnMut(::hearthmq::store::ClientHistory),
        ) -> Result<(), ::hearthmq::store::StoreError> {
            let $this = self;
            ::hearthmq::store::Store::histories($below, each)
        }
    };
    (@ in_flight $this:ident $below:expr) => {
        fn in_flight(
            &self,
            session: ::hearthmq::store::SessionNumber,
        ) -> Result<Vec<::hearthmq::store::StoredInFlight>, ::hearthmq::store::StoreError> {
            let $this = self;
            ::hearthmq::store::Store::in_flight($below, session)
        }
    };
    (@ waiting $this:ident $below:expr) => {
        fn waiting(
            &self,
            session: ::hearthmq::store::SessionNumber,
            from: ::hearthmq::store::QueuePlace,
            page: ::hearthmq::store::PageBounds,
        ) -> Result<
            Vec<(::hearthmq::store::QueuePlace, ::hearthmq::store::QueuedMessage)>,
            ::hearthmq::store::StoreError,
        > {
            let $this = self;
            ::hearthmq::store::Store::waiting($below, session, from, page)
        }
    };
}
