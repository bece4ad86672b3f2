//! Who the master is, according to the Sentinels.

use futures_util::future::{FutureExt as _, select_ok};
use tokio::time::timeout;

use super::Shared;
use super::config::{Address, Topology};
use super::connect::{connect, login};
use super::failure::Failure;

/// Asks all Sentinels at once, and believes the first that knows the master: one that is wrong
/// names a server that refuses to be written to, and is asked again then.
pub async fn master(shared: &Shared) -> Result<Address, Failure> {
    let Topology::Sentinel { master, sentinels } = &shared.config.topology else {
        return Err(Failure::Down);
    };
    let asked = sentinels.iter().map(|sentinel| ask(shared, sentinel, master).boxed());
    let most = shared.config.connect_timeout;
    let named = timeout(most, select_ok(asked)).await.map_err(|_| Failure::Timeout)?;
    named.map(|(address, _)| address)
}

async fn ask(shared: &Shared, sentinel: &Address, master: &str) -> Result<Address, Failure> {
    let login = login(&shared.config.sentinel_credentials, 0);
    let (mut connection, driver) = connect(sentinel, shared.tls.as_ref(), &login).await?;
    let mut cmd = redis::cmd("SENTINEL");
    cmd.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let asked = cmd.query_async::<Option<(String, u16)>>(&mut connection);
    let named = tokio::select! {
        () = driver => return Err(Failure::Broken),
        named = asked => named.map_err(|error| Failure::of(&error))?,
    };
    let (host, port) = named.ok_or(Failure::Down)?;
    Ok(Address { host, port })
}
