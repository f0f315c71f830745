/** No secret is in a log line of any level, nor in an error (docs/rules.md B6.3). */
import { afterAll, beforeAll, expect, describe as group, test } from "bun:test";
import { chmod } from "node:fs/promises";
import { join } from "node:path";
import { createKeychain } from "../lib/registry-keychain.ts";
import { describeError } from "../lib/errors.ts";
import type { Registry } from "../lib/registry.ts";
import { bigBlob, makeClient, makeManifest, readAll, SHORT, textBlob } from "./helpers/registry-client.ts";
import { type Demand, registrySuite, type Rule } from "./helpers/registry-fault-proxy.ts";
import { type Folder, makeFolder } from "./helpers/world-folders.ts";
import { realHost } from "./helpers/world-host.ts";

const { missing, other, proxy, repository, testNumber } = registrySuite();
const canaries = {
  password: "canary-pass/w+rd&1",
  refresh: "canary-refresh-2",
  token: "canary-token",
  signature: "canary-signature",
  state: "canary-state",
};
let folder: Folder;

beforeAll(async () => {
  if (missing) return;
  folder = await makeFolder();
  const helper = `#!/bin/sh\ncat > /dev/null\necho '${canaries.password}' >&2\nprintf '{"Username":"joe","Secret":"${canaries.password}"}'\n`;
  await Bun.write(join(folder.path, "docker-credential-canary"), helper);
  await chmod(join(folder.path, "docker-credential-canary"), 0o755);
});

afterAll(() => folder?.[Symbol.asyncDispose]());

const account = { username: "joe", password: canaries.password };
const basic = Buffer.from(`joe:${canaries.password}`).toString("base64");
/** What a careless registry says of a secret that it was sent. */
const echo = (secret: string): string => {
  const forms = [secret, Buffer.from(secret).toString("base64"), encodeURIComponent(secret), JSON.stringify(secret)];
  return `you said ${forms.join(" and ")}, see https://x.example/?sig=${canaries.signature}`;
};
/** The secret of each of {@link auths}. */
const sent: Record<string, string> = {
  "a password": `joe:${canaries.password}`,
  "an identity token": canaries.refresh,
  "a registry token": canaries.token,
  "a helper": canaries.password,
};
const signed = (): string => `http://${other.host}/v2/x?X-Sig=${canaries.signature}&_state=${canaries.state}`;

const auths: Record<string, (host: string) => unknown> = {
  "a password": (host) => ({ auths: { [host]: { auth: basic } } }),
  "an identity token": (host) => ({ auths: { [host]: { identitytoken: canaries.refresh } } }),
  "a registry token": (host) => ({ auths: { [host]: { registrytoken: canaries.token } } }),
  "a helper": () => ({ credsStore: "canary" }),
};

const demands: Record<string, Demand> = {
  Basic: { kind: "basic", ...account },
  "another Basic": { kind: "basic", username: "joe", password: "other" },
  Bearer: { kind: "bearer", prefix: canaries.token, refreshToken: canaries.refresh, uses: 3 },
  "Bearer for others": { kind: "bearer", credential: { username: "joe", password: "other" } },
};

const faults: Record<string, (secret: string) => Rule[]> = {
  nothing: () => [],
  "echoing refusals": (secret) => [
    {
      method: "POST",
      fault: {
        kind: "answer",
        status: 403,
        body: JSON.stringify({ errors: [{ code: "DENIED", message: echo(secret) }] }),
      },
    },
  ],
  "plain echoes": (secret) => [
    { path: /\/(?:blobs|manifests)\//, fault: { kind: "answer", status: 500, body: echo(secret) } },
  ],
  "signed redirects": () => [
    { method: "GET", path: /\/blobs\//, fault: { kind: "answer", status: 307, headers: { location: signed() } } },
  ],
  "signed Locations": () => [
    { method: "POST", path: /\/blobs\//, fault: { kind: "answer", status: 202, headers: { location: signed() } } },
  ],
  "Locations with a login": () => [
    {
      method: "POST",
      path: /\/blobs\//,
      fault: {
        kind: "answer",
        status: 202,
        headers: { location: `http://joe:${canaries.password}@169.254.169.254/?s=${canaries.signature}` },
      },
    },
  ],
  resets: () => [{ method: "PUT", fault: { kind: "reset" } }],
};

async function runEverything(registry: Registry): Promise<readonly string[]> {
  const layer = bigBlob(70_000, testNumber());
  const manifest = makeManifest([layer]);
  const mounted = { ...textBlob(`m${testNumber()}`), source: { host: repository.host, path: "base" } };
  const steps: (() => Promise<unknown>)[] = [
    () => registry.pushBlob(repository, layer),
    () => registry.pushBlob(repository, mounted),
    () => registry.pushBlob(repository, manifest.config),
    () => registry.pushManifest(repository, "v1", manifest),
    () => registry.getManifest(repository, "v1"),
    () => registry.findManifest(repository, "v2"),
    () => registry.hasBlob(repository, layer.descriptor),
    () => readAll(registry.openBlob(repository, layer.descriptor)),
  ];
  const errors: string[] = [];
  for (const step of steps) {
    await step().catch((error: unknown) => {
      errors.push(describeError(error), error instanceof Error ? `${error.stack} ${Bun.inspect(error)}` : "");
    });
  }
  return errors;
}

group.skipIf(missing)("nothing secret is said", () => {
  const cases = Object.keys(auths).flatMap((auth) =>
    Object.keys(demands).flatMap((demand) => Object.keys(faults).map((fault) => [auth, demand, fault] as const)),
  );
  test.each(cases)("with %s, where %s is wanted, and %s happens", async (auth, demand, fault) => {
    const config = JSON.stringify(auths[auth]?.(proxy.host));
    await Bun.write(join(folder.path, "config.json"), config);
    const env = { DOCKER_CONFIG: folder.path, PATH: `${folder.path}:/usr/bin:/bin` };
    const said: string[] = [];
    const say = (message: string): void => void said.push(message);
    const log = { info: say, warn: say, debug: say };
    proxy.demand = demands[demand];
    proxy.reset(faults[fault]?.(sent[auth] ?? "") ?? []);
    await using client = makeClient({ keychain: createKeychain({ ...realHost, env }, log), log, deadlines: SHORT });
    const errors = await runEverything(client.registry);
    await client[Symbol.asyncDispose]();
    const all = [...said, ...errors].join("\n");
    expect(all.length).toBeGreaterThan(500);
    const forms = Object.values({ ...canaries, basic }).flatMap((secret) => [
      secret,
      encodeURIComponent(secret),
      Buffer.from(secret).toString("base64"),
      Buffer.from(`joe:${secret}`).toString("base64"),
      Buffer.from(`<token>:${secret}`).toString("base64"),
    ]);
    expect(forms.filter((form) => all.includes(form))).toEqual([]);
  });
});
