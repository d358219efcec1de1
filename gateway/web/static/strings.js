// Every word of the page, in one place. Sentences about faults come from the gateway.
export const text = {
  colours: { green: "Good", amber: "Attention", red: "Down" },
  health: { unknown: "Not heard yet" },
  all: "All",
  uptime: (age) => `running for ${age}`,
  lost: (age) => `Connection lost. Last seen ${age} ago; it is tried again by itself.`,
  never: "No connection to the gateway yet.",
  buffer: "Buffer",
  waiting: (count) => (count === 1 ? "1 record" : `${number(count)} records`),
  oldest: (age) => `held; the oldest is ${age} old`,
  empty: "Nothing is held back",
  uplink: (name) => `Uplink ${name}`,
  connected: "Connected",
  disconnected: "Not connected",
  starting: "Starting",
  acknowledged: (age) => `acknowledged ${age} ago`,
  unacknowledged: "nothing acknowledged yet",
  since: (age) => `for ${age}`,
  devices: (count) => (count === 1 ? "1 device" : `${number(count)} devices`),
  points: (count) => (count === 1 ? "1 more value" : `${count} more values`),
  remarks: (count) => (count === 0 ? "" : count === 1 ? "1 remark" : `${count} remarks`),
  strangers: "Called, but not in the site file",
  nameless: "(no name)",
  calls: (count) => (count === 1 ? "1 call" : `${number(count)} calls`),
  received: (count) => (count === 1 ? "1 reading" : `${number(count)} readings`),
  links: "Links",
  lanes: "Buffer by lane",
  about: "Gateway",
  up: "Up",
  down: "Down",
  failures: (count) => (count === 1 ? "1 failure" : `${number(count)} failures`),
  clock: "Clock",
  clocks: { synced: "Synchronised", holdover: "Holdover", unsynced: "Not set", corrected: "Corrected" },
  off: (error) => (error === null ? "" : ` ± ${number(Math.ceil(error / 100) / 10)} s`),
  configuration: "Configuration",
  committed: (count) => `${number(count)} written`,
  full: (age) => `full in ${age} if it goes on like this`,
  dead: (count) => (count === 1 ? "1 refused for good" : `${number(count)} refused for good`),
  quarantined: (count) => (count === 1 ? "1 damaged file kept" : `${number(count)} damaged files kept`),
  ago: (age) => `${age} ago`,
  none: "no value",
  notYet: "not read yet",
  truth: { true: "on", false: "off" },
  reasons: {
    comm_failure: "no answer", device_failure: "device fault", out_of_range: "out of range",
    not_a_number: "not a number", absent: "not fitted", stale: "too old", warming_up: "warming up",
    substituted: "substituted", counter_reset: "counter restarted", config_error: "configured wrongly",
    idle: "idle",
  },
  overdue: "overdue",
  uncertain: "uncertain",
};

const UNITS = { Cel: "°C", deg: "°", "ug/m3": "µg/m³", "W/m2": "W/m²", 1: "", enum: "" };
const IN_THOUSANDS = new Set(["W", "var", "VA", "Wh", "varh", "VAh"]);

const WORDS = { pm1: "PM1", pm25: "PM2.5", pm10: "PM10", no2: "NO₂", o3: "O₃", so2: "SO₂", co: "CO", co2: "CO₂", thd: "THD", n: "N" };

/** A point's slug as a person writes it: `voltage_l1` is `voltage L1`. */
export function name(slug) {
  const words = slug.split("_").map((word) => WORDS[word] ?? (/^l[123]{1,2}$/.test(word) ? word.toUpperCase() : word));
  return words.join(" ");
}

export function number(value) {
  return value.toLocaleString("en", { maximumFractionDigits: Math.abs(value) < 10 ? 3 : Math.abs(value) < 1000 ? 2 : 1 });
}

export function value(point) {
  if (point.age_ms === null) return text.notYet;
  if (point.value === null) return text.none;
  if (typeof point.value === "boolean") return text.truth[point.value];
  if (typeof point.value !== "number") return point.value.replaceAll("_", " ");
  const large = IN_THOUSANDS.has(point.unit) && Math.abs(point.value) >= 10000;
  const unit = (large ? "k" : "") + (UNITS[point.unit] ?? point.unit);
  const amount = number(large ? point.value / 1000 : point.value);
  return unit === "°" ? amount + unit : unit ? `${amount}\u202f${unit}` : amount;
}

export function age(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

export function bytes(count) {
  return count < 1e6 ? `${number(Math.round(count / 1024))} KB` : `${number(Math.round(count / 1048576))} MB`;
}
