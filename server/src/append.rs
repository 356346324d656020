//! The append router: what every door calls to append. It measures, and hands to the log; order is fixed by that call.

use std::{collections::BTreeSet, sync::Arc};

use foldlog_log::{Append, Appended, Precondition, TopicName, Write};

use crate::{
    app::App,
    failure::{Failure, Kind},
};

impl App {
    /// Appends one unit; ends when it is as durable as it asks, or its topics say.
    ///
    /// # Errors
    /// Whatever the log says; NOT_READY and DRAINING.
    pub async fn append(&self, append: Append) -> Result<Appended, Failure> {
        let redacted: BTreeSet<TopicName> = append.writes.iter().filter_map(redacts).collect();
        if redacted.is_empty() {
            return self.append_alone(append).await;
        }
        // Whoever asked may stop waiting: what queries know must go all the same.
        let app = self.clone();
        let redacting = self.tasks.spawn("redaction", async move {
            // First what queries keep over a restart: none may go on from it once the data is gone.
            let appended = match app.about_to_redact(&redacted).await {
                Ok(()) => app.append_alone(append).await,
                Err(failure) => Err(failure),
            };
            // What may have been redacted all the same stays forgotten.
            if appended.as_ref().is_err_and(|failure| failure.kind != Kind::Unknown) {
                app.not_redacted(&redacted).await;
            }
            let appended = appended?;
            for topic in redacted {
                if let Err(error) = app.stage()?.engine.refold(topic.clone()).await {
                    // What is still folded from what was there is folded anew at the next start.
                    tracing::error!(%topic, %error, "queries could not be folded anew after a redaction");
                }
            }
            Ok(appended)
        });
        redacting.await.map_err(|_| Failure::new(Kind::Unknown, "OUTCOME_UNKNOWN", "the append was interrupted"))?
    }

    async fn about_to_redact(&self, topics: &BTreeSet<TopicName>) -> Result<(), Failure> {
        for topic in topics {
            self.stage()?.engine.about_to_redact(topic.clone()).await?;
        }
        Ok(())
    }

    async fn not_redacted(&self, topics: &BTreeSet<TopicName>) {
        for topic in topics {
            // A server that ends keeps nothing more anyway.
            let Ok(stage) = self.stage() else { return };
            if let Err(error) = stage.engine.not_redacted(topic.clone()).await {
                tracing::warn!(%topic, %error, "queries keep no state over a restart");
            }
        }
    }

    async fn append_alone(&self, append: Append) -> Result<Appended, Failure> {
        let began = self.clock.monotonic();
        let events: usize = append.writes.iter().map(count).sum();
        let log = Arc::clone(&self.stage()?.log);
        let asks_files = append.preconditions.iter().any(|one| matches!(one, Precondition::QueryAbsent(_)));
        let appending = if asks_files
            || append.writes.iter().any(|write| matches!(write, Write::Change { .. } | Write::Snapshot { .. } | Write::Redact { .. }))
        {
            // Such a condition may be looked up in files, and a topic's first mark is told by its manifest.
            let appending = tokio::task::spawn_blocking(move || log.append(append)).await;
            appending.map_err(|_| Failure::new(Kind::Unknown, "OUTCOME_UNKNOWN", "the append was interrupted"))?
        } else {
            log.append(append)
        };
        let appended = appending?.await?;
        if !appended.deduplicated {
            self.metrics.appends.inc();
            self.metrics.appended_events.inc_by(events as u64);
        }
        self.metrics.append_seconds.observe((self.clock.monotonic().saturating_sub(began)).as_secs_f64());
        Ok(appended)
    }
}

fn redacts(write: &Write) -> Option<TopicName> {
    let Write::Redact { topic, .. } = write else { return None };
    Some(topic.clone())
}

fn count(write: &Write) -> usize {
    match write {
        Write::Stream { events, .. } => events.len(),
        Write::Records { records, .. } => records.len(),
        Write::Change { .. } | Write::Snapshot { .. } | Write::Redact { .. } => 0,
    }
}
