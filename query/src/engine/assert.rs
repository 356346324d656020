//! ASSERT TOPIC: waits for a topic to be as it should.

use std::time::Duration;

use foldlog_log::{LogError, TopicName};

use super::{Core, done};
use crate::{answer::Answer, error::QueryError, sql::statement::AssertTopic};

/// How often a topic is looked at while it is waited for.
const PAUSE: Duration = Duration::from_millis(20);

impl Core {
    pub(super) async fn assert_topic(&self, assert: &AssertTopic, longest: Duration) -> Result<Answer, QueryError> {
        let name: TopicName = assert.name.parse().map_err(LogError::from)?;
        let waits = async {
            while self.fault_of(&name, assert).is_some() {
                tokio::time::sleep(PAUSE).await;
            }
        };
        // Looked at once more at the end, whatever the time: nobody wakes a sleeper when a topic comes.
        let _ = tokio::time::timeout(assert.timeout.min(longest), waits).await;
        match self.fault_of(&name, assert) {
            Some(fault) => Err(QueryError::Asserted(fault)),
            None if assert.exists => Ok(done(self.head(), format!("topic {name} exists"))),
            None => Ok(done(self.head(), format!("topic {name} does not exist"))),
        }
    }

    /// What is not as it should be.
    fn fault_of(&self, name: &TopicName, assert: &AssertTopic) -> Option<String> {
        match (self.log.topic(name), assert.exists) {
            (Err(_), false) => None,
            (Err(_), true) => Some(format!("topic {name} does not exist")),
            (Ok(_), false) => Some(format!("topic {name} exists")),
            (Ok(topic), true) => {
                let partitions = topic.settings.partitions;
                match (assert.partitions.filter(|wanted| *wanted != partitions), assert.replicas.filter(|wanted| *wanted != 1)) {
                    (Some(wanted), _) => Some(format!("topic {name} has {partitions} partitions, not {wanted}")),
                    (None, Some(wanted)) => Some(format!("topic {name} has 1 copy, not {wanted}")),
                    (None, None) => None,
                }
            }
        }
    }
}
