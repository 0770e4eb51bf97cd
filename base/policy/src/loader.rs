//! Loading slices: each is believed only after it has passed every check; what two slices of one bundle share is checked once.
//!
//! The slices of roles have the same entities and facts, and those are most of what there is to check. A slice that differs in a byte of
//! them is checked for itself.
//!
//! Guarantees: E1, the traps of POLICY.

use std::sync::Arc;

use cedar_policy::Schema;
use serde_json::Value;

use crate::bundle::{Rule, parse_schema};
use crate::cedar::Vocabulary;
use crate::engine::{Engine, LoadError};
use crate::slice::PolicySlice;

/// Loads slices one after the other.
#[derive(Debug, Default)]
pub struct Loader {
    last: Option<Shared>,
}

/// What a slice that has passed may have in common with the next.
#[derive(Debug)]
struct Shared {
    text: String,
    entities: Value,
    world: Vec<Rule>,
    schema: Schema,
    vocabulary: Arc<Vocabulary>,
}

impl Loader {
    /// Checks a slice and takes it.
    ///
    /// # Errors
    /// See `LoadError`: a slice that fails in any point is not used at all.
    pub fn load(&mut self, slice: &PolicySlice, epoch: u64) -> Result<Engine, LoadError> {
        let known = self.last.as_ref().filter(|l| l.text == slice.schema && l.entities == slice.entities && l.world == slice.world);
        let engine = match known {
            Some(shared) => Engine::unchecked(slice, &shared.schema, Arc::clone(&shared.vocabulary), epoch)?,
            None => {
                let schema = parse_schema(&slice.schema)?;
                let vocabulary = Arc::new(Vocabulary::new(&slice.entities, &schema)?);
                let engine = Engine::unchecked(slice, &schema, Arc::clone(&vocabulary), epoch)?;
                engine.check_facts(slice, &schema)?;
                engine.check_groups()?;
                let (text, entities, world) = (slice.schema.clone(), slice.entities.clone(), slice.world.clone());
                self.last = Some(Shared { text, entities, world, schema, vocabulary });
                engine
            }
        };
        engine.check_examples(slice)?;
        Ok(engine)
    }
}
