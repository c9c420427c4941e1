//! Topics, made and deleted through librdkafka's admin client.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;

/// How long an answer may take on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// An admin client with a runtime to wait in.
pub struct Admin {
    client: AdminClient<DefaultClientContext>,
    runtime: tokio::runtime::Runtime,
}

impl Admin {
    /// Connects to a broker.
    pub fn new(bootstrap: &str) -> Result<Self> {
        let client = ClientConfig::new().set("bootstrap.servers", bootstrap).create().context("admin client")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Admin { client, runtime })
    }

    /// Creates a topic with these settings.
    pub fn create(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<()> {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            new = new.set(key, value);
        }
        let answers = self.runtime.block_on(self.client.create_topics([&new], &options())).context("create a topic")?;
        first(answers, topic)
    }

    /// Gives a topic these settings, and no others.
    pub fn alter(&self, topic: &str, settings: &[(&str, &str)]) -> Result<()> {
        let mut alteration = AlterConfig::new(ResourceSpecifier::Topic(topic));
        for (key, value) in settings {
            alteration = alteration.set(key, value);
        }
        let answers = self.runtime.block_on(self.client.alter_configs([&alteration], &options())).context("alter settings")?;
        match answers.into_iter().next().context("an answer for one topic")? {
            Ok(_) => Ok(()),
            Err((_, code)) => Err(anyhow!("{topic}: {code}")),
        }
    }

    /// Deletes a topic.
    pub fn delete(&self, topic: &str) -> Result<()> {
        let answers = self.runtime.block_on(self.client.delete_topics(&[topic], &options())).context("delete a topic")?;
        first(answers, topic)
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT))
}

fn first(answers: Vec<rdkafka::admin::TopicResult>, topic: &str) -> Result<()> {
    match answers.into_iter().next().context("an answer for one topic")? {
        Ok(_) => Ok(()),
        Err((_, code)) => Err(anyhow!("{topic}: {code}")),
    }
}
