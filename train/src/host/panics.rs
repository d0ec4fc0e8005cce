//! Internal panics become one line instead of a backtrace.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook};

thread_local! {
    /// Message and location of the last panic of this thread.
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Silences the standard report of panics and keeps message and location for [`catch`].
pub fn install() {
    set_hook(Box::new(|info| {
        let description = describe(info);
        tracing::debug!("panic: {description}");
        LAST.with_borrow_mut(|last| *last = Some(description));
    }));
}

/// Runs `work`; a panic inside it is returned as its message, in one line.
///
/// # Errors
///
/// The message and the location of the panic.
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // The state that `work` may have left half changed is dropped with it: nothing reads it again.
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let remembered = LAST.with_borrow_mut(Option::take);
        // A panic of another thread that rayon passed on was not recorded for this thread.
        remembered.unwrap_or_else(|| crate::error::one_line(&message_of(payload.as_ref())))
    })
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let message = crate::error::one_line(&message_of(info.payload()));
    match info.location() {
        Some(place) => format!("{message} (at {}:{})", place.file(), place.line()),
        None => message,
    }
}

fn message_of(payload: &dyn std::any::Any) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).into()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "panic without a message".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message_and_place() {
        install();
        let said = catch(|| panic!("two\n lines")).unwrap_err();
        let _ = std::panic::take_hook();
        assert!(said.starts_with("two lines (at ") && said.contains("panics.rs"), "{said}");
        assert_eq!(catch(|| 3), Ok(3));
    }
}
