//! What a coordinator or another worker can send to a worker, through the decoders that take it: for the package that
//! fuzzes them. Always built, so that it cannot fall behind the decoders; no program calls it, and it decides nothing.

use carousel_proto::v1::FromCoordinator;
use prost::Message;

use crate::intake::{Content, Intake};
use crate::settings::Settings;

pub use crate::peers::hostile::push;

/// What a coordinator says in a session; a Welcome's settings are checked, and rule what comes after it.
pub fn session(messages: &[&[u8]]) {
    let mut intake = Intake::default();
    for message in messages.iter().map_while(|bytes| FromCoordinator::decode(*bytes).ok()) {
        let Ok(content) = intake.accept(message) else { return };
        let Some(Content::Welcome(welcome)) = content else { continue };
        match welcome.settings.map(Settings::try_from) {
            Some(Ok(settings)) => {
                settings.most_gradient_bytes();
                intake.expect(&settings);
            }
            _ => return,
        }
    }
}
