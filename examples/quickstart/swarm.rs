//! The nodes, and the directory that holds theirs.

use std::time::Duration;

use anyhow::Context;
use futures::future::join_all;
use sorcha_peer::{Config, Identity, PeerNode, SqliteStorage};

use crate::common::Scratch;
use crate::progress::Progress;

/// Nodes on loopback, each with a key and files of its own.
pub(crate) struct Swarm {
    size: usize,
    nodes: Vec<PeerNode>,
    storages: Vec<SqliteStorage>,
    scratch: Scratch,
}

/// The configuration of every node.
pub(crate) fn config() -> Config {
    Config::lan()
}

impl Swarm {
    /// Room for so many nodes; none runs yet.
    pub(crate) fn new(size: usize) -> anyhow::Result<Self> {
        Ok(Self { size, nodes: Vec::new(), storages: Vec::new(), scratch: Scratch::new()? })
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn nodes(&self) -> &[PeerNode] {
        &self.nodes
    }

    /// Starts all nodes, and waits until each is linked with others.
    pub(crate) async fn start(&mut self, progress: &Progress) -> anyhow::Result<()> {
        progress.phase("nodes started", self.size);
        for number in 0..self.size {
            self.start_one(number).await.context("cannot start a node")?;
            progress.step();
        }
        progress.phase("nodes linked", self.size);
        let links = u32::try_from((self.size - 1).min(6))?;
        for node in &self.nodes {
            node.wait_ready(links, Duration::from_mins(1)).await.context("nodes do not link")?;
            progress.step();
        }
        Ok(())
    }

    async fn start_one(&mut self, number: usize) -> anyhow::Result<()> {
        let dir = self.scratch.path().join(format!("node-{number}"));
        let storage = SqliteStorage::open(&dir).await?;
        self.storages.push(storage.clone());
        let bootstrap = self.nodes.first().and_then(PeerNode::listen_addr);
        let node = PeerNode::builder()
            .config(config())
            .identity(Identity::load_or_create(dir.join("node.key"))?)
            .network("quickstart")
            .listen("127.0.0.1:0")
            .bootstrap(bootstrap.map(|address| address.to_string()))
            .storage(storage)
            .start()
            .await?;
        self.nodes.push(node);
        Ok(())
    }

    /// Ends the nodes that run and removes all files.
    pub(crate) async fn end(self) {
        join_all(self.nodes.iter().map(|node| node.shutdown(Duration::from_secs(1)))).await;
        join_all(self.storages.iter().map(SqliteStorage::close)).await;
        self.scratch.remove().await;
    }
}
