//! Nodes of the network on the same LAN: what is heard of them goes to the driver, as candidates.
//!
//! It ends by itself when the shutdown of the node begins, and the node ends after it: by then others
//! are told that this node is gone.
//!
//! Tested by: the tests below, `tests/node/nearby.rs`.

use std::net::SocketAddr;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use crate::node::messages::Completion;
use crate::protocol::Input;
use crate::types::Endpoint;

/// Way to find nodes on the LAN: given are where this node listens, where to tell of what is found, and
/// the end of the node.
pub(in crate::node) type FindNearby = Box<
    dyn FnOnce(
            Option<SocketAddr>,
            mpsc::Sender<Vec<Endpoint>>,
            BoxFuture<'static, ()>,
        ) -> BoxFuture<'static, ()>
        + Send,
>;

/// Finds nodes until the node does not run any more.
pub(in crate::node) async fn run(
    find: FindNearby,
    listening: Option<SocketAddr>,
    is_running: watch::Receiver<bool>,
    done: mpsc::Sender<Completion>,
) {
    let (found, mut heard) = mpsc::channel(1);
    let tell = async move {
        while let Some(endpoints) = heard.recv().await {
            let nearby = Completion::Inputs(vec![Input::Nearby { endpoints }]);
            if done.send(nearby).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(find(listening, found, end_of(is_running).boxed()), tell);
}

/// Waits until the node does not run any more; it has yet to begin.
async fn end_of(mut is_running: watch::Receiver<bool>) {
    while is_running.changed().await.is_ok() {
        if !*is_running.borrow_and_update() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_found_is_told_until_the_node_ends() {
        let (done, mut completions) = mpsc::channel(1);
        let (runs, is_running) = watch::channel(false);
        let place: Endpoint = "10.0.0.2:5001".parse().unwrap();
        let told = vec![place.clone()];
        let find: FindNearby = Box::new(move |listening, found, ended| {
            assert_eq!(listening, None);
            async move {
                found.send(told).await.unwrap();
                ended.await;
            }
            .boxed()
        });
        let looking = tokio::spawn(run(find, None, is_running, done));
        let Some(Completion::Inputs(inputs)) = completions.recv().await else { panic!("nothing") };
        let [Input::Nearby { endpoints }] = &inputs[..] else { panic!("{inputs:?}") };
        assert_eq!(*endpoints, [place]);
        runs.send(true).unwrap();
        tokio::task::yield_now().await;
        assert!(!looking.is_finished(), "it runs now");
        runs.send(false).unwrap();
        looking.await.unwrap();
        assert!(completions.recv().await.is_none());
    }

    #[tokio::test]
    async fn an_end_before_anybody_looked_is_one_too() {
        let (runs, is_running) = watch::channel(false);
        runs.send_replace(true);
        runs.send_replace(false);
        end_of(is_running).await;
        let (runs, is_running) = watch::channel(false);
        drop(runs);
        end_of(is_running).await;
    }
}
