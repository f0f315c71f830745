/**
 * `registries:` of `.ko.yaml` with real registries: a CA of their own, no checks, mirrors of base images.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { copyFileSync, mkdirSync } from "node:fs";
import { findCounterparts } from "./helpers/counterparts.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { type ImageSpec, pushImage } from "./helpers/registry-images.ts";
import { findFreePort, startRegistry, type TestRegistry } from "./helpers/registry.ts";
import { makeBench } from "./helpers/world-bench.ts";

const programs = findCounterparts(["docker-registry", "skopeo"]);
const PATIENCE = 120_000;
const FILES = { "go.mod": goMod("example.com/app"), "cmd/web/main.go": mainGo("web") };
const BASE: ImageSpec = { config: { os: "linux", architecture: "amd64", created: "2026-01-01T00:00:00Z", config: {} } };

const stack = new AsyncDisposableStack();
let plain: TestRegistry;
let secure: TestRegistry;

beforeAll(async () => {
  if (programs === undefined) return;
  plain = stack.use(await startRegistry());
  secure = stack.use(await startRegistry({ tls: true }));
});

afterAll(() => stack.disposeAsync());

describe.skipIf(programs === undefined)("registries", () => {
  test(
    "ko-build/ko#142: pushes to a registry with a CA of its own, and its SBOM too",
    async () => {
      using bench = makeBench(FILES, { host: secure.host, config: "defaultBaseImage: ko.builtin/static\n" });
      const refused = await bench.ours(["build", "./cmd/web"]);
      expect([refused.code, refused.stdout]).toEqual([1, ""]);
      expect(refused.stderr).toContain(`or ca of ${secure.host} in registries of .ko.yaml`);

      const config = `defaultBaseImage: ko.builtin/static\nregistries:\n  ${secure.host}: {ca: ca.pem}\n`;
      bench.work.write({ "config/.ko.yaml": config });
      const missing = await bench.ours(["build", "./cmd/web"]);
      expect([missing.code, missing.stdout]).toEqual([1, ""]);
      expect(missing.stderr).toContain(`Cannot use ca "${bench.work.at("config/ca.pem")}"`);
      expect(missing.stderr).toMatch(/\.ko\.yaml:3:\d+: ENOENT/);

      copyFileSync(secure.certificate ?? "", bench.work.at("config/ca.pem"));
      const built = await bench.ours(["build", "./cmd/web"]);
      expect([built.code, built.stderr]).toEqual([0, expect.stringContaining("Published SBOM")]);
      expect(built.stdout).toMatch(/@sha256:[0-9a-f]{64}\n$/);
    },
    PATIENCE,
  );

  test(
    "ko-build/ko#123: without checks, for one registry only",
    async () => {
      const config = `defaultBaseImage: ko.builtin/static\nregistries: {'${secure.host}': {insecure: true}}\n`;
      using bench = makeBench(FILES, { host: secure.host, config });
      expect((await bench.ours(["build", "./cmd/web"])).code).toBe(0);
      const shown = await bench.ours(["config"]);
      expect(shown.stdout).toContain(`${secure.host}: without TLS checks`);
    },
    PATIENCE,
  );

  test(
    "ko-build/ko#369: takes the certificates that podman and Docker keep for a registry",
    async () => {
      using bench = makeBench(FILES, { host: secure.host, config: "defaultBaseImage: ko.builtin/static\n" });
      const folder = bench.work.at(`own/containers/certs.d/${secure.host}`);
      mkdirSync(folder, { recursive: true });
      copyFileSync(secure.certificate ?? "", `${folder}/ca.crt`);
      const env = { XDG_CONFIG_HOME: bench.work.at("own") };
      expect((await bench.ours(["build", "./cmd/web"], { env })).code).toBe(0);
    },
    PATIENCE,
  );
});

describe.skipIf(programs === undefined)("mirrors", () => {
  test(
    "base images come from the mirror, also its layers, and keep their name",
    async () => {
      const { digest } = await pushImage(plain.host, { name: "hub/bases/app", spec: BASE, tag: "v1" });
      // Nobody listens there: only the mirror has the image.
      const origin = `127.0.0.1:${await findFreePort()}`;
      const mirror = `registries: {'${origin}': {mirrors: ['${plain.host}/bases/hub']}}`;
      const config = `defaultBaseImage: ${origin}/bases/app:v1\n${mirror}\n`;
      using bench = makeBench(FILES, { host: plain.host, config });
      const built = await bench.ours(["build", "--oci-layout-path", "layout", "./cmd/web"]);
      expect([built.code, built.stderr]).toEqual([0, expect.stringContaining(`${origin}/bases/app:v1@${digest}`)]);
      const annotations = await bench.ours(["build", "--oci-layout-path", "layout", "--push=false", "./cmd/web"]);
      expect(annotations.code).toBe(0);
    },
    PATIENCE,
  );

  test(
    "a mirror that fails or lacks the image is skipped with one line",
    async () => {
      const { digest } = await pushImage(plain.host, { name: "origin", spec: BASE, tag: "v1" });
      const gone = `127.0.0.1:${await findFreePort()}`;
      const mirrors = `registries: {'${plain.host}': {mirrors: ['${gone}', '${plain.host}/nothing']}}`;
      using bench = makeBench(FILES, {
        host: plain.host,
        config: `defaultBaseImage: ${plain.host}/bases/origin:v1\n${mirrors}\n`,
      });
      const { code, stderr } = await bench.ours(["build", "./cmd/web"]);
      expect([code, stderr]).toEqual([0, expect.stringContaining(`${plain.host}/bases/origin:v1@${digest}`)]);
      expect(stderr.split("\n").filter((line) => line.includes(" is skipped: "))).toEqual([
        expect.stringContaining(`Mirror ${gone}/bases/origin is skipped: `),
        expect.stringContaining(`Mirror ${plain.host}/nothing/bases/origin is skipped: `),
      ]);
    },
    PATIENCE,
  );
});
