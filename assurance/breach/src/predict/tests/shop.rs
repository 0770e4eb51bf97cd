//! A shop of six services, in the shape of a well-known sample: what N10 asks for.

use super::{cells, deputies, predicted};
use crate::report::Kind;

pub(crate) const SHOP: &str = r#"
[system]
name = "shop"
trust_domain = "shop.example"
purposes = ["browse", "buy", "fulfil"]
[edge]
listen = "127.0.0.1:8443"
hosts = ["localhost"]
[data.page]
sensitivity = 1
[data.order]
sensitivity = 2
[data.card]
sensitivity = 3
[service.webapp]
run = ["./webapp"]
data = "order"
public = [ { path = "/", methods = ["GET"], purpose = "browse", page = true }, { path = "/orders", methods = ["POST"], purpose = "buy", scope = "orders" } ]
calls = [ "service.catalog:GET /items", "service.basket:GET /basket", "service.ordering:POST /orders" ]
[service.catalog]
run = ["./catalog"]
data = "page"
state = true
internal = [ { path = "/items", methods = ["GET"], purpose = "browse" } ]
[service.basket]
run = ["./basket"]
data = "order"
state = true
internal = [ { path = "/basket", methods = ["GET"], purpose = "browse" }, { path = "/basket", methods = ["DELETE"], purpose = "buy" } ]
[service.ordering]
run = ["./ordering"]
data = "order"
state = true
internal = [ { path = "/orders", methods = ["POST"], purpose = "buy" } ]
calls = [ "service.basket:DELETE /basket", "queue.submitted:publish for buy" ]
[service.payment]
run = ["./payment"]
data = "card"
consumes = "queue.submitted"
calls = [ "egress.bank:POST /charges for fulfil", "queue.paid:publish for fulfil", "secret.bank:read" ]
[service.webhooks]
run = ["./webhooks"]
data = "page"
consumes = "queue.paid"
[queue.submitted]
data = "order"
purpose = "fulfil"
[queue.paid]
data = "order"
purpose = "fulfil"
[egress.bank]
host = "bank.example"
data = "card"
[secret.bank]
data = "card"
"#;

// N10: worked out by hand.
#[test]
fn six_services_of_a_shop_have_the_radius_that_was_worked_out_by_hand() {
    let shop = predicted(SHOP);
    let lateral: Vec<(&str, Vec<&str>)> =
        shop.report.lateral.0.iter().map(|(from, to)| (from.as_str(), to.keys().map(String::as_str).collect())).collect();
    assert_eq!(lateral, [("ordering", vec!["basket"]), ("webapp", vec!["basket", "catalog", "ordering"])]);
    // Declared, and no role serves secrets yet.
    assert_eq!(cells(&shop, "service.payment", Kind::Secret), Vec::<String>::new());
    assert_eq!(shop.report.unserved["payment"].iter().collect::<Vec<_>>(), ["secret.bank:read"]);
    assert_eq!(cells(&shop, "service.payment", Kind::Egress), ["egress.bank POST /charges: of the person in flight"]);
    for other in ["webapp", "catalog", "basket", "ordering", "webhooks"] {
        let who = format!("service.{other}");
        assert!(cells(&shop, &who, Kind::Secret).is_empty() && cells(&shop, &who, Kind::Egress).is_empty(), "{other}");
    }
    // Whoever takes orders can have the bank charged, for the person in flight: payment is its deputy.
    let charged = "service.payment outside egress.bank POST /charges: of the person in flight".to_owned();
    assert!(deputies(&shop, "service.ordering").contains(&charged));
    assert!(deputies(&shop, "service.webapp").contains(&charged));
    assert!(deputies(&shop, "service.webhooks").is_empty());
}
