/** The transport without a registry: where a `Location` may lead. Redirects: registry-pull, registry-upload. */
import { describe, expect, test } from "bun:test";
import { keyOf, type Records } from "../lib/cache.ts";
import { DEADLINES } from "../lib/http-transfer.ts";
import { Http } from "../lib/http.ts";
import { silentLog } from "../lib/log.ts";
import { Connection } from "../lib/registry-transport.ts";
import { Secrets } from "../lib/url.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { noCredentials } from "./helpers/registry-client.ts";

/** A connection that knows from a record how its host is reached, so that it asks nothing. */
function connectTo(base: string): Connection {
  const { host } = new URL(base);
  const record = { learned: 0, base };
  const records: Records = {
    read: (kind, key) => (kind === "host" && key === keyOf(host) ? record : undefined),
    write: () => {},
    remove: () => {},
  };
  const { signal } = new AbortController();
  const clock = { now: () => 0, sleep: async () => {}, random: () => 0 };
  const rest = { userAgent: "ko/test", env: {}, insecureHosts: [], secrets: new Secrets(), deadlines: DEADLINES };
  const http = new Http({ log: silentLog, signal, clock, ...rest });
  return new Connection({ http, host, signal, records, keychain: noCredentials, trusted: "" });
}

const FROM = "https://r.invalid/v2/app/blobs/uploads/";

describe("Connection.resolve()", () => {
  test.each<[string, string, string, string]>([
    ["a path", FROM, "/v2/app/blobs/uploads/1?state=x", "https://r.invalid/v2/app/blobs/uploads/1?state=x"],
    ["a relative path", FROM, "2", "https://r.invalid/v2/app/blobs/uploads/2"],
    ["another host", FROM, "https://storage.invalid/x?sig=a%2Fb", "https://storage.invalid/x?sig=a%2Fb"],
    ["the same host over http, behind a TLS proxy", FROM, "http://r.invalid/x", "https://r.invalid/x"],
    ["the same, with a port", "https://r.invalid:5000/v2/", "http://r.invalid/x", "https://r.invalid:5000/x"],
    ["a user and a fragment", FROM, "https://joe:pass@r.invalid/x#y", "https://r.invalid/x"],
    ["http where the registry has no https", "http://127.0.0.1:5000/v2/", "/x", "http://127.0.0.1:5000/x"],
  ])("%s", async (_, from, location, wanted) => {
    const base = new URL("/", from).href;
    expect((await connectTo(base).resolve(location, new URL(from), "push it")).href).toBe(wanted);
  });

  test.each<[string, string, string]>([
    ["no URL", "http://[", "it is not a URL"],
    ["a file", "file:///etc/passwd", "file: is not supported"],
    ["http at another host", "http://storage.invalid/x", "storage.invalid is not reached over https"],
    ["http at another port", "http://r.invalid:81/x", "r.invalid:81 is not reached over https"],
    ["this machine", "https://localhost/x", "localhost is a loopback address"],
    ["a metadata service", "https://169.254.169.254/x", "169.254.169.254 is a link-local address"],
  ])("refuses %s", async (_, location, why) => {
    const resolved = connectTo("https://r.invalid/").resolve(location, new URL(FROM), "push it");
    expect(String(await rejectionOf(resolved))).toEndWith(
      `Cannot push it: the location that r.invalid names is refused: ${why}`,
    );
  });
});
