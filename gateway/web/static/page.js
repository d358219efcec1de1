// The page: one event stream in, text nodes out. What the gateway says is only ever set as text.
import { text, name, number, value, age, bytes } from "./strings.js";

const SILENCE = 16_000; // ms: three beats of the stream, and a little
const SHOWN = 4; // points of a device that show without a tap
const WORST = { red: 0, amber: 1, green: 2 };

const place = (id) => document.getElementById(id);
const devices = new Map(); // id -> { told, at, node }
let latest = null;
let heard = 0;
let stream = null;
let filter = "";

function make(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

function put(node, words) {
  if (node.textContent !== words) node.textContent = words;
}

// ---- devices ------------------------------------------------------------------------------------

function card(device) {
  const node = make("article", "device");
  const parts = {
    title: make("h3", ""), badge: make("span", "badge"), say: make("p", "say"), foot: make("p", "soft"),
    rows: device.points.map(() => [make("span", ""), make("b", ""), make("span", "age")]),
    first: make("div", "points"), more: make("summary", ""), rest: make("div", "points"), known: null,
    remarks: make("ul", "soft"),
  };
  const details = make("details", "", parts.more, parts.rest, parts.remarks);
  node.append(make("div", "", parts.title, parts.badge), parts.say, parts.first, details, parts.foot);
  return { node, parts };
}

/** What has never come and is not missed, as most of a charger's points while nobody charges, takes no room. */
function spread(parts, points, remarks) {
  const known = points.flatMap((point, index) => (point.age_ms !== null || point.stale ? [index] : []));
  const spreads = JSON.stringify([known, remarks]);
  if (spreads === parts.known) return;
  parts.known = spreads;
  parts.first.replaceChildren(...known.slice(0, SHOWN).flatMap((index) => parts.rows[index]));
  parts.rest.replaceChildren(...known.slice(SHOWN).flatMap((index) => parts.rows[index]));
  parts.remarks.replaceChildren(...remarks.map((say) => make("li", "", say)));
  parts.rest.parentNode.hidden = known.length <= SHOWN && !remarks.length;
  const more = [known.length > SHOWN ? text.points(known.length - SHOWN) : "", text.remarks(remarks.length)];
  put(parts.more, more.filter(Boolean).join(", "));
}

function show(held) {
  const { told, parts, node } = held;
  node.className = `device ${told.colour}`;
  put(parts.title, told.id.slice(told.id.indexOf("/") + 1));
  put(parts.badge, text.health[told.health] ?? text.colours[told.colour]);
  put(parts.say, told.say);
  parts.say.hidden = !told.say;
  spread(parts, told.points, told.remarks);
  told.points.forEach((point, index) => {
    const [label, amount] = parts.rows[index];
    put(label, name(point.id.slice(point.id.lastIndexOf("/") + 1)));
    const isOff = point.quality && point.quality !== "good";
    const why = isOff ? text.reasons[point.reason] ?? point.reason ?? text.uncertain : "";
    put(amount, why ? `${value(point)}, ${why}` : value(point));
    amount.className = isOff || point.value === null ? "off" : "";
  });
}

function tick(held, now) {
  const passed = now - held.at;
  held.told.points.forEach((point, index) => {
    const cell = held.parts.rows[index][2];
    put(cell, point.age_ms === null ? "" : age(point.age_ms + passed));
    cell.className = point.stale ? "age off" : "age";
  });
  const since = text.since(age(held.told.since_ms + passed));
  const state = text.health[held.told.health] ?? text.colours[held.told.colour];
  put(held.parts.foot, `${state} ${since} · ${held.told.link} · ${text.received(held.told.readings)}`);
}

function arrange() {
  const groups = new Map();
  for (const [id, held] of devices) {
    if (filter && held.told.colour !== filter) continue;
    const asset = id.slice(0, id.indexOf("/"));
    if (!groups.has(asset)) groups.set(asset, []);
    groups.get(asset).push(held);
  }
  const worst = (members) => Math.min(...members.map((held) => WORST[held.told.colour]));
  const sorted = [...groups].sort(
    ([a, first], [b, second]) => worst(first) - worst(second) || a.localeCompare(b, "en", { numeric: true }),
  );
  const order = filter + sorted.map(([asset, members]) => [asset, ...members.map((held) => held.told.id)]).join("|");
  if (order === arrange.order) return;
  arrange.order = order;
  place("assets").replaceChildren(
    ...sorted.map(([asset, members]) =>
      make("section", "group", make("h2", "", asset), make("div", "cards", ...members.map((held) => held.node)))),
  );
}

function filters() {
  const counts = { "": devices.size, red: 0, amber: 0, green: 0 };
  for (const held of devices.values()) counts[held.told.colour] += 1;
  if (!filters.buttons) {
    filters.buttons = Object.keys(counts).map((colour) => {
      const button = make("button", colour, make("b", ""), make("span", "", colour ? text.colours[colour] : text.all));
      button.type = "button";
      button.addEventListener("click", () => { filter = filter === colour ? "" : colour; filters(); arrange(); });
      return [colour, button];
    });
    place("filters").append(...filters.buttons.map(([, button]) => button));
  }
  for (const [colour, button] of filters.buttons) {
    put(button.firstChild, number(counts[colour]));
    button.setAttribute("aria-pressed", String(filter === colour));
  }
}

// ---- all the rest -------------------------------------------------------------------------------

function tile(colour, title, words, soft) {
  return make("div", `tile ${colour}`, make("p", "", title), make("b", "", words), make("p", "", soft));
}

function bufferTile(passed) {
  const held = latest.lanes.reduce((sum, lane) => sum + lane.records, 0);
  const ages = latest.lanes.filter((lane) => lane.oldest_ms !== null).map((lane) => lane.oldest_ms);
  const error = latest.lanes.map((lane) => lane.error).find(Boolean);
  const isWaiting = latest.uplinks.some((uplink) => uplink.connected === false);
  const soft = error ?? (held && ages.length ? text.oldest(age(Math.max(...ages) + passed)) : text.empty);
  return tile(error ? "red" : isWaiting && held ? "amber" : "green", text.buffer, text.waiting(held), soft);
}

function uplinkTile(uplink, passed) {
  const acknowledged = uplink.acknowledged_ms === null
    ? text.unacknowledged : text.acknowledged(age(uplink.acknowledged_ms + passed));
  const title = text.uplink(uplink.name);
  if (uplink.connected === null) return tile("amber", title, text.starting, uplink.say || acknowledged);
  if (uplink.connected) return tile(uplink.say ? "amber" : "green", title, text.connected, uplink.say || acknowledged);
  return tile("red", title, `${text.disconnected} ${text.since(age(uplink.since_ms + passed))}`, uplink.say);
}

function facts(title, rows) {
  const items = rows.map(([what, state, soft]) =>
    make("li", "", make("b", "", what), state, make("p", "soft", soft)));
  return [make("h2", "", title), make("ul", "facts", ...items)];
}

function rest(now) {
  const passed = now - heard;
  put(place("gateway"), latest.gateway);
  put(place("uptime"), text.uptime(age(latest.uptime_ms + passed)));
  document.title = latest.gateway;
  place("tiles").replaceChildren(bufferTile(passed), ...latest.uplinks.map((uplink) => uplinkTile(uplink, passed)));
  const state = (up) => (up === null ? text.starting : up ? text.up : text.down);
  const links = latest.links.map((link) => [
    link.name, `${state(link.up)} ${text.since(age(link.since_ms + passed))}`,
    [link.say, link.restarts ? text.failures(link.restarts) : ""].filter(Boolean).join(" · "),
  ]);
  const lanes = latest.lanes.map((lane) => [
    lane.name, text.waiting(lane.records), lane.error ?? [
      bytes(lane.bytes), text.committed(lane.committed), lane.full_ms === null ? "" : text.full(age(lane.full_ms)),
      lane.dead ? text.dead(lane.dead) : "", lane.quarantined ? text.quarantined(lane.quarantined) : "",
    ].filter(Boolean).join(" · "),
  ]);
  const about = [
    [
      text.clock, `${text.clocks[latest.clock.state]} ${text.since(age(latest.clock.since_ms + passed))}`,
      new Date(latest.clock.time + passed).toISOString().slice(0, 19) + "Z" + text.off(latest.clock.error_ms),
    ],
    [text.configuration, latest.configuration.running.slice(0, 12), text.since(age(latest.configuration.since_ms + passed))],
  ];
  const strangers = latest.strangers.map((stranger) => [
    stranger.identity || text.nameless, `${stranger.address} · ${text.calls(stranger.calls)}`,
    `${stranger.protocols} · ${text.ago(age(latest.clock.time + passed - stranger.last))}`,
  ]);
  place("more").replaceChildren(
    ...(strangers.length ? facts(text.strangers, strangers) : []), ...facts(text.links, links),
    ...facts(text.lanes, lanes), ...facts(text.about, about),
  );
}

function banners(now) {
  const found = [];
  const isLost = now - heard > SILENCE || stream.readyState !== EventSource.OPEN;
  if (isLost) found.push(["red", heard ? text.lost(age(now - heard)) : text.never]);
  if (latest?.configuration.say) found.push(["amber", latest.configuration.say]);
  if (latest?.clock.say) found.push(["amber", latest.clock.say]);
  document.body.classList.toggle("lost", isLost && heard > 0);
  const words = JSON.stringify(found);
  if (words === banners.words) return;
  banners.words = words;
  place("banners").replaceChildren(...found.map(([colour, say]) => make("p", colour, say)));
}

// ---- the stream ---------------------------------------------------------------------------------

function take(snapshot) {
  heard = Date.now();
  latest = snapshot;
  if (snapshot.after === 0) {
    const present = new Set(snapshot.devices.map((device) => device.id));
    for (const id of devices.keys()) if (!present.has(id)) devices.delete(id);
  }
  for (const told of snapshot.devices) {
    let held = devices.get(told.id);
    if (!held || held.told.points.length !== told.points.length) devices.set(told.id, (held = card(told)));
    held.told = told;
    held.at = heard;
    show(held);
    tick(held, heard);
  }
  filters();
  arrange();
  rest(heard);
  banners(heard);
}

function connect() {
  stream = new EventSource("/api/events");
  stream.onmessage = (message) => take(JSON.parse(message.data));
  stream.onerror = async () => {
    banners(Date.now());
    if (stream.readyState !== EventSource.CLOSED) return;
    const answer = await fetch("/api/status").catch(() => null);
    if (answer?.status === 401) location.reload(); // the token was changed: the entrance asks for the new one
    else setTimeout(connect, 3000);
  };
}

connect();
setInterval(() => {
  const now = Date.now();
  if (now - heard > SILENCE && stream.readyState === EventSource.OPEN) {
    stream.close();
    connect();
  }
  banners(now);
  if (!latest) return;
  for (const held of devices.values()) tick(held, now);
  rest(now);
}, 1000);
