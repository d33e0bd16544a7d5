//! Results that caches elsewhere offer. Nothing of a layer is fetched before somebody needs its files.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{OnceCell, mpsc};
use wherry_image_store::{DiffId, Layer, Store};

use super::cache::Key;
use super::inline::Carried;
use super::job::Future;
use crate::error::Error;

/// From where a cache's layers come.
pub(crate) trait Blobs: Send + Sync {
    /// Brings a layer, given its number from below, into the store, and checks that it is the one with this id. What happens is
    /// told in the messages of a pull.
    fn layer(&self, number: usize, diff_id: DiffId, messages: mpsc::Sender<Bytes>) -> Future<'_, Arc<Layer>>;
}

/// The layers of an image elsewhere.
struct Cache {
    /// As the user named it.
    name: String,
    diff_ids: Vec<DiffId>,
    blobs: Box<dyn Blobs>,
    /// Those that have come.
    layers: Vec<OnceCell<Arc<Layer>>>,
}

/// The result of a step, which can be had.
#[derive(Clone)]
pub(super) struct Offer {
    cache: Arc<Cache>,
    number: usize,
    diff_id: DiffId,
    created_ns: i64,
}

/// All results that are offered to a build, by the keys of their steps.
#[derive(Default)]
pub(crate) struct Offers {
    results: HashMap<Key, Offer>,
    /// Which cache did not keep its promise, and why.
    broken: Mutex<Option<(String, String)>>,
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.diff_id, self.cache.name)
    }
}

impl Offer {
    /// The layer's id.
    pub(super) fn diff_id(&self) -> DiffId {
        self.diff_id
    }

    /// The layers below it.
    pub(super) fn below(&self) -> &[DiffId] {
        self.cache.diff_ids.get(..self.number).unwrap_or_default()
    }

    /// When it was made; 0 if nobody knows.
    pub(super) fn created_ns(&self) -> i64 {
        self.created_ns
    }
}

impl Offers {
    /// Adds what a cache has; where caches have the same, the first one counts.
    pub(crate) fn add(&mut self, name: &str, carried: &Carried, blobs: Box<dyn Blobs>) {
        let layers = carried.diff_ids.iter().map(|_| OnceCell::new()).collect();
        let cache =
            Arc::new(Cache { name: name.to_owned(), diff_ids: carried.diff_ids.clone(), blobs, layers });
        for result in &carried.results {
            let Some(diff_id) = carried.diff_ids.get(result.layer).copied() else { continue };
            let (cache, number, created_ns) = (cache.clone(), result.layer, result.created_ns);
            self.results.entry(result.key).or_insert(Offer { cache, number, diff_id, created_ns });
        }
    }

    /// Whether there is nothing to be had.
    pub(super) fn is_empty(&self) -> bool {
        self.results.is_empty()
    }

    /// The result of a step.
    pub(super) fn find(&self, key: &Key) -> Option<Offer> {
        self.results.get(key).cloned()
    }

    /// What the other caches offer.
    pub(super) fn without(&self, name: &str) -> Self {
        let others = self.results.iter().filter(|(_, offer)| offer.cache.name != name);
        let results = others.map(|(key, offer)| (*key, offer.clone())).collect();
        Self { results, broken: Mutex::default() }
    }

    /// Brings an offered layer; several who need it bring it once.
    ///
    /// # Errors
    /// Why it cannot be had; from then on the offers are broken.
    pub(super) async fn bring(
        &self,
        store: &Store,
        offer: &Offer,
        messages: mpsc::Sender<Bytes>,
    ) -> Result<Arc<Layer>, Error> {
        let cache = &offer.cache;
        let brought = async {
            let missing = || Error::server("the cache names a layer that it has not");
            let cell = cache.layers.get(offer.number).ok_or_else(missing)?;
            let bring = || async {
                match store.layer(&offer.diff_id) {
                    Some(layer) => Ok(Arc::new(layer)),
                    None => cache.blobs.layer(offer.number, offer.diff_id, messages).await,
                }
            };
            cell.get_or_try_init(bring).await.cloned()
        };
        brought.await.inspect_err(|error| {
            let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
            broken.get_or_insert_with(|| (cache.name.clone(), error.to_string()));
        })
    }

    /// The cache that did not keep its promise, and why.
    pub(super) fn broken(&self) -> Option<(String, String)> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use wherry_image_ref::Digest;

    use super::*;
    use crate::build::inline::StepResult;

    /// Makes the layers that it has when they are asked for, and counts.
    struct Counted {
        store: Store,
        asked: Arc<AtomicUsize>,
    }

    fn layer(store: &Store, text: &str) -> Arc<Layer> {
        let draft = store.draft(&[]).unwrap();
        std::fs::write(draft.upper().join("file"), text).unwrap();
        Arc::new(draft.seal().unwrap())
    }

    impl Blobs for Counted {
        fn layer(&self, number: usize, _: DiffId, _: mpsc::Sender<Bytes>) -> Future<'_, Arc<Layer>> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                tokio::task::yield_now().await;
                match number {
                    0 => Ok(layer(&self.store, "first")),
                    _ => Err(Error::server("it is damaged")),
                }
            })
        }
    }

    #[tokio::test]
    async fn a_layer_comes_once_and_when_it_is_needed() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let (of, asked) = (|text: &str| Key::of(text.as_bytes()), Arc::new(AtomicUsize::new(0)));
        let count = || asked.load(Ordering::SeqCst);
        let results = [("a", 0), ("also a", 0), ("b", 1), ("here", 2)];
        let results =
            results.map(|(text, layer)| StepResult { key: of(text), layer, created_ns: 7 }).to_vec();
        let here = layer(&store, "here");
        let ids = ["first", "second"].map(|text| DiffId(Digest::of(text.as_bytes())));
        let diff_ids = vec![ids[0], ids[1], here.diff_id()];
        let mut offers = Offers::default();
        let blobs = || Box::new(Counted { store: store.clone(), asked: asked.clone() });
        offers.add("cache", &Carried { diff_ids: diff_ids.clone(), results: results.clone() }, blobs());
        offers.add("later", &Carried { diff_ids, results }, blobs());
        let find = |text: &str| offers.find(&of(text));
        assert!(find("nothing").is_none());
        let a = find("a").unwrap();
        assert_eq!((a.diff_id(), a.created_ns(), format!("{a:?}").ends_with(" of cache")), (ids[0], 7, true));
        assert_eq!((a.below(), find("b").unwrap().below()), (&[][..], &ids[..1]));
        assert_eq!(count(), 0, "nobody has asked for its files");

        let bring = |offer: Offer| {
            let (offers, store) = (&offers, &store);
            async move { offers.bring(store, &offer, mpsc::channel(1).0).await }
        };
        let (one, other) = tokio::join!(bring(a), bring(find("also a").unwrap()));
        assert_eq!(one.unwrap().diff_id(), other.unwrap().diff_id());
        assert_eq!(bring(find("here").unwrap()).await.unwrap().diff_id(), here.diff_id());
        assert_eq!((count(), offers.broken()), (1, None));
        assert!(bring(find("b").unwrap()).await.is_err());
        assert_eq!(offers.broken(), Some(("cache".into(), "it is damaged".into())));
        let left = offers.without("cache");
        assert_eq!((left.is_empty(), left.broken()), (true, None), "the later one had nothing of its own");
        assert!(!offers.without("later").is_empty());
    }
}
