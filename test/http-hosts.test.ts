/** Rules for hosts, and certificates of `certs.d`, with real TLS servers. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describeError } from "../lib/errors.ts";
import type { HostRule } from "../lib/http-hosts.ts";
import { parseRepository } from "../lib/reference.ts";
import { failureOf, rejectionOf } from "./helpers/failures.ts";
import { makeClient } from "./helpers/registry-client.ts";
import { makeCertificate } from "./helpers/registry.ts";
import { makeFolder } from "./helpers/world-folders.ts";

const DIGEST = `sha256:${"0".repeat(64)}`;
const NOTHING: HostRule = { http: false, insecure: false, ca: undefined };

let folder: Awaited<ReturnType<typeof makeFolder>>;
let pem: string;
let key: string;
let server: ReturnType<typeof Bun.serve>;
/** Wants a certificate of its clients. */
let strict: ReturnType<typeof Bun.serve>;

/** Answers as a registry that has each manifest. */
function answer(): Response {
  const type = "application/vnd.oci.image.manifest.v1+json";
  return new Response(null, {
    headers: { "docker-content-digest": DIGEST, "content-length": "7", "content-type": type },
  });
}

beforeAll(async () => {
  folder = await makeFolder();
  pem = readFileSync(await makeCertificate(folder.path), "utf8");
  key = readFileSync(join(folder.path, "key.pem"), "utf8");
  server = Bun.serve({ port: 0, hostname: "127.0.0.1", tls: { cert: pem, key }, fetch: answer });
  const tls = { cert: pem, key, ca: pem, requestCert: true, rejectUnauthorized: true };
  strict = Bun.serve({ port: 0, hostname: "127.0.0.1", tls, fetch: answer });
});

afterAll(async () => {
  await server.stop(true);
  await strict.stop(true);
  await folder[Symbol.asyncDispose]();
});

function hostOf({ port }: ReturnType<typeof Bun.serve>): string {
  return `127.0.0.1:${port}`;
}

async function ask(
  host: string,
  { env = {}, rule }: { readonly env?: Readonly<Record<string, string>>; readonly rule?: HostRule },
): Promise<string | undefined> {
  await using client = makeClient({ env, rules: new Map(rule === undefined ? [] : [[host, rule]]) });
  return (await client.registry.findManifest(parseRepository(`${host}/app`), "v1"))?.digest;
}

/** Writes files of a host into `certs.d` of a home directory. */
async function homeWith(
  place: string,
  files: Readonly<Record<string, string>>,
): Promise<Readonly<Record<string, string>>> {
  const home = join(folder.path, crypto.randomUUID());
  for (const [name, text] of Object.entries(files)) {
    const path = join(home, ".config", place, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  }
  return { HOME: home };
}

describe("rules for hosts", () => {
  test("ca trusts the registry that it is for, and no other", async () => {
    const host = hostOf(server);
    const rule = { ...NOTHING, ca: { value: join(folder.path, "cert.pem"), where: ".ko.yaml:2:3" } };
    expect(await ask(host, { rule })).toBe(DIGEST);
    expect((await failureOf(ask(`localhost:${server.port}`, {}))).message).toContain("its certificate is not trusted");
    expect((await failureOf(ask(host, {}))).hint).toContain(`or ca of ${host} in registries of .ko.yaml`);
  });

  test("insecure checks no certificate", async () => {
    expect(await ask(hostOf(server), { rule: { ...NOTHING, insecure: true } })).toBe(DIGEST);
  });

  test.each([
    ["is not there", "gone.pem", undefined, "ENOENT"],
    ["is no PEM text", "none.pem", "hello\n", "it has no certificate, wanted a PEM file"],
  ])("says that ca %s, and where it is set", async (_, name, text, why) => {
    const path = join(folder.path, name);
    if (text !== undefined) writeFileSync(path, text);
    const rule = { ...NOTHING, ca: { value: path, where: ".ko.yaml:2:3" } };
    const shown = describeError(await rejectionOf(ask(hostOf(server), { rule })));
    expect(shown).toContain(`Cannot use ca "${path}" of .ko.yaml:2:3: ${why}`);
  });

  test("http reaches a host of the network without a word over https", async () => {
    // The proxy stands for the network: it gets whole URLs of plain http, and CONNECT for https.
    const seen: string[] = [];
    using proxy = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: ({ method, url }) => {
        seen.push(`${method} ${url}`);
        return answer();
      },
    });
    const env = { HTTP_PROXY: `http://127.0.0.1:${proxy.port}`, HTTPS_PROXY: "http://127.0.0.1:1" };
    expect(await ask("registry.lan", { env, rule: { ...NOTHING, http: true } })).toBe(DIGEST);
    expect(seen).toEqual(["GET http://registry.lan/v2/", "HEAD http://registry.lan/v2/app/manifests/v1"]);
    expect((await failureOf(ask("registry.lan", { env }))).message).toContain("https://registry.lan/v2/");
  });
});

describe("certs.d", () => {
  test.each(["containers/certs.d", "docker/certs.d"])("reads authorities of %s", async (place) => {
    const host = hostOf(server);
    const env = await homeWith(place, { [`${host}/ca.crt`]: pem, [`${host}/notes.txt`]: "hello" });
    expect(await ask(host, { env })).toBe(DIGEST);
    expect((await failureOf(ask(`localhost:${server.port}`, { env }))).message).toContain("not trusted");
  });

  test("sends the certificate of the client", async () => {
    const host = hostOf(strict);
    const files = { [`${host}/ca.crt`]: pem, [`${host}/client.cert`]: pem, [`${host}/client.key`]: key };
    expect(await ask(host, { env: await homeWith("containers/certs.d", files) })).toBe(DIGEST);
    const without = await homeWith("containers/certs.d", { [`${host}/ca.crt`]: pem });
    await failureOf(ask(host, { env: without }));
  });

  test("wants the key beside a certificate", async () => {
    const host = hostOf(server);
    const env = await homeWith("docker/certs.d", { [`${host}/client.cert`]: pem });
    expect((await failureOf(ask(host, { env }))).message).toBe(
      `Cannot use the certificate "${env["HOME"]}/.config/docker/certs.d/${host}/client.cert": its key "client.key" is not beside it`,
    );
  });
});
