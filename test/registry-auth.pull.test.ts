/** A pull asks for credentials that take time only after a refusal. */
import { beforeAll, describe, expect, test } from "bun:test";
import type { FindOptions, FoundCredential, Keychain } from "../lib/registry-credential.ts";
import { createKeychain } from "../lib/registry-keychain.ts";
import { failureOf } from "./helpers/failures.ts";
import { makeClient, makeManifest, textBlob } from "./helpers/registry-client.ts";
import { type Demand, registrySuite, type Rule } from "./helpers/registry-fault-proxy.ts";
import { writeTree } from "./helpers/world-folders.ts";
import { hostAt } from "./helpers/world-host.ts";

const account = { username: "joe", password: "s3cret-pass" };
const right: FoundCredential = { credential: { kind: "basic", ...account }, source: "all sources" };
const stale: FoundCredential = { credential: { kind: "basic", username: "joe", password: "old" }, source: "a file" };
const manifest = makeManifest([]);

const { missing, proxy, server } = registrySuite();
const repository = {
  get host(): string {
    return proxy.host;
  },
  path: "private/app",
};

beforeAll(async () => {
  if (missing) return;
  await using client = makeClient();
  const direct = { host: server.host, path: repository.path };
  await client.registry.pushBlob(direct, manifest.config);
  await client.registry.pushManifest(direct, "v1", manifest);
});

interface Recorder extends Keychain {
  /** The searches, without repeats. */
  readonly asked: () => readonly string[];
}

/** A keychain whose files have one credential, and all sources together another. */
function recorder(files: FoundCredential | undefined, all: FoundCredential | undefined): Recorder {
  const asked = new Set<string>();
  return {
    asked: () => [...asked],
    find: async (_, options?: FindOptions) => {
      const { effort, push } = options ?? { effort: "all", push: true };
      asked.add(`${effort} for a ${push ? "push" : "pull"}`);
      return effort === "files" ? files : all;
    },
    explain: () => ([...asked].some((search) => search.startsWith("all")) ? ["no source has one"] : []),
  };
}

/** The requests of a pull without the ping, and whether each had an authorization. */
const requests = (): readonly string[] =>
  proxy.seen
    .filter(({ path }) => path !== "/v2/")
    .map(({ headers, method, path, status }) => {
      const who = headers["authorization"]?.split(" ")[0] ?? "anonymous";
      return `${method} ${path.startsWith("/token") ? "token" : "manifest"} ${who} ${status ?? "-"}`;
    });

const refuse = (status: number): Rule => ({
  path: /\/manifests\//,
  only: [1],
  fault: { kind: "answer", status, body: '{"errors":[{"code":"DENIED"}]}' },
});

describe.skipIf(missing)("a pull", () => {
  const files = "files for a pull";
  const all = "all for a pull";
  const bearer: Demand = { kind: "bearer" };
  const closed: Demand = { kind: "bearer", credential: account };
  test.each<
    [
      string,
      Demand | undefined,
      Rule[],
      readonly [FoundCredential | undefined, FoundCredential | undefined],
      string[],
      string[],
    ]
  >([
    ["from an open registry asks for none", undefined, [], [undefined, right], [], ["GET manifest anonymous 200"]],
    [
      "of a public image asks no source that takes time",
      bearer,
      [],
      [undefined, right],
      [files],
      ["GET token anonymous 200", "GET manifest Bearer 200"],
    ],
    [
      "where the token server refuses asks all",
      closed,
      [],
      [undefined, right],
      [files, all],
      ["GET token anonymous 401", "GET token Basic 200", "GET manifest Bearer 200"],
    ],
    ...[401, 403, 404, 429].map(
      (
        status,
      ): [
        string,
        Demand,
        Rule[],
        readonly [FoundCredential | undefined, FoundCredential | undefined],
        string[],
        string[],
      ] => [
        `that is refused with ${status} asks all`,
        bearer,
        [refuse(status)],
        [undefined, right],
        [files, all],
        ["GET token anonymous 200", `GET manifest Bearer ${status}`, "GET token Basic 200", "GET manifest Bearer 200"],
      ],
    ),
    [
      "uses a login from a file at once",
      closed,
      [],
      [right, right],
      [files],
      ["GET token Basic 200", "GET manifest Bearer 200"],
    ],
    [
      "asks all if the login from a file is refused",
      closed,
      [],
      [stale, right],
      [files, all],
      ["GET token Basic 401", "GET token Basic 200", "GET manifest Bearer 200"],
    ],
    [
      "asks all at once after a Basic challenge",
      { kind: "basic", ...account },
      [],
      [undefined, right],
      [all],
      ["GET manifest Basic 200"],
    ],
    [
      "asks all after the challenge to a request",
      { kind: "bearer", credential: account, openPing: true },
      [],
      [undefined, right],
      [files, all],
      ["GET manifest anonymous 401", "GET token anonymous 401", "GET token Basic 200", "GET manifest Bearer 200"],
    ],
  ])("%s", async (_, demand, rules, [fromFiles, fromAll], wanted, sent) => {
    proxy.demand = demand;
    // A 401 without a challenge would end the matter.
    const challenge = { "www-authenticate": `Bearer realm="http://${proxy.host}/token",service="x"` };
    proxy.reset(
      rules.map((rule) => {
        const { fault } = rule;
        const isRefusal = fault.kind === "answer" && fault.status === 401;
        return isRefusal ? { ...rule, fault: { ...fault, headers: challenge } } : rule;
      }),
    );
    const keychain = recorder(fromFiles, fromAll);
    await using client = makeClient({ keychain });
    const { descriptor } = await client.registry.getManifest(repository, "v1");
    expect({ digest: descriptor.digest, asked: keychain.asked(), sent: requests(), waits: client.waits }).toEqual({
      digest: manifest.descriptor.digest,
      asked: wanted,
      sent,
      waits: [],
    });
  });

  test("remembers that a repository is private", async () => {
    proxy.demand = closed;
    const keychain = recorder(undefined, right);
    await using client = makeClient({ keychain });
    await client.registry.getManifest(repository, "v1");
    proxy.reset();
    await client.registry.getManifest(repository, "v1");
    expect(requests()).toEqual(["GET manifest Bearer 200"]);
  });

  test("keeps no refresh token of an anonymous token", async () => {
    proxy.demand = { kind: "bearer", refreshToken: "anonymous-refresh" };
    proxy.reset([refuse(403)]);
    await using client = makeClient({ keychain: recorder(undefined, right) });
    await client.registry.getManifest(repository, "v1");
    expect(requests()[2]).toBe("GET token Basic 200");
  });

  test.each([403, 404])("that is refused with %i and has no credential is sent once, and says why", async (status) => {
    proxy.demand = bearer;
    proxy.reset([refuse(status)]);
    const keychain = recorder(undefined, undefined);
    await using client = makeClient({ keychain });
    const { message } = await failureOf(client.registry.getManifest(repository, "v1"));
    expect(message).toEndWith(`answered ${status} (DENIED), without a credential: no source has one`);
    expect({ asked: keychain.asked(), sent: requests() }).toEqual({
      asked: [files, all],
      sent: ["GET token anonymous 200", `GET manifest Bearer ${status}`],
    });
  });

  test("that the token server refuses, and that has no credential, says why", async () => {
    proxy.demand = closed;
    await using client = makeClient({ keychain: recorder(undefined, undefined) });
    const { message } = await failureOf(client.registry.getManifest(repository, "v1"));
    expect(message).toEndWith("without a credential: no source has one");
    expect(requests()).toEqual(["GET token anonymous 401"]);
  });

  test("and a push asks all sources at once", async () => {
    proxy.demand = closed;
    const keychain = recorder(undefined, right);
    await using client = makeClient({ keychain });
    await client.registry.pushBlob({ host: proxy.host, path: "pushed" }, textBlob("pushed"));
    expect(keychain.asked()).toEqual(["all for a push"]);
  });
});

describe.skipIf(missing)("a broken credential helper", () => {
  const world = () => {
    const tree = writeTree({
      ".docker/config.json": '{"credsStore":"broken"}',
      "bin/docker-credential-broken": { executable: '#!/bin/sh\necho x >> "$HOME/calls"\nexit 3\n' },
    });
    const host = hostAt(tree.path, { env: { HOME: tree.path, PATH: `${tree.path}/bin:/usr/bin:/bin` } });
    return { tree, host };
  };

  test("is not started for a public image", async () => {
    const { host, tree } = world();
    using _ = tree;
    proxy.demand = { kind: "bearer" };
    await using client = makeClient({ keychain: createKeychain(host, { info() {}, warn() {}, debug() {} }) });
    await client.registry.getManifest(repository, "v1");
    expect(await Bun.file(tree.at("calls")).exists()).toBe(false);
  });

  test("is a warning and a reason for a pull, and ends a push", async () => {
    const { host, tree } = world();
    using _ = tree;
    proxy.demand = { kind: "bearer", credential: account };
    const warnings: string[] = [];
    const log = { info() {}, warn: (message: string) => void warnings.push(message), debug() {} };
    await using client = makeClient({ keychain: createKeychain(host, log) });
    const why = `Cannot get credentials for "${proxy.host}" from docker-credential-broken (credsStore in ${tree.path}/.docker/config.json): exit code 3`;
    const pull = await failureOf(client.registry.getManifest(repository, "v1"));
    expect(pull.message).toEndWith(`, without a credential: ${why}`);
    expect(warnings).toEqual([why]);
    const push = await failureOf(client.registry.pushBlob(repository, textBlob("x")));
    expect(push.message).toBe(why);
  });
});
