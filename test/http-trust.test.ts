/** Certificate authorities as Go finds them: places, variables, bad entries, and servers whose certificate needs them. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdir, symlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { rootCertificates } from "node:tls";
import { findDaemon } from "../lib/docker-host.ts";
import { DockerEngine } from "../lib/docker.ts";
import { readAuthorities, SystemTrust, type TrustPlaces } from "../lib/http-trust.ts";
import { fetchInput } from "../lib/yaml-inputs.ts";
import { failureOf, rejectionOf } from "./helpers/failures.ts";
import { makeClient, textBlob } from "./helpers/registry-client.ts";
import { makeAuthority, type TestAuthority } from "./helpers/registry.ts";
import { makeFolder } from "./helpers/world-folders.ts";
import { hostAt } from "./helpers/world-host.ts";

let folder: Awaited<ReturnType<typeof makeFolder>>;
let authority: TestAuthority;
let server: ReturnType<typeof Bun.serve>;

beforeAll(async () => {
  folder = await makeFolder();
  authority = await makeAuthority(folder.path);
  server = Bun.serve({
    port: 0,
    tls: authority.server,
    fetch: ({ method, url }) => {
      if (url.endsWith("_ping")) return new Response("OK", { headers: { "api-version": "1.41" } });
      return new Response(method === "HEAD" ? null : "kind: Test\n");
    },
  });
});
afterAll(async () => {
  await server.stop(true);
  await folder[Symbol.asyncDispose]();
});

const [first = "", second = "", third = ""] = rootCertificates;
const blockOf = (pem: string): string => pem.replaceAll(/-----[A-Z ]+-----|\s/g, "");

/** Writes files into `root`: a text, or `-> target` for a symlink. */
async function write(root: string, files: Readonly<Record<string, string>>): Promise<void> {
  for (const [name, text] of Object.entries(files)) {
    const path = join(root, name);
    await mkdir(dirname(path), { recursive: true });
    if (text.startsWith("-> ")) await symlink(text.slice(3).replace("$ROOT", root), path);
    else await Bun.write(path, text);
  }
}

describe("readAuthorities()", () => {
  const places = (root: string): TrustPlaces => ({
    files: ["a.crt", "b.crt", "c.crt"].map((name) => join(root, name)),
    folders: ["certs", "more"].map((name) => join(root, name)),
  });
  const broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
  const other = second.replaceAll("CERTIFICATE", "TRUSTED CERTIFICATE");
  const withHeader = second.replace("-----\n", "-----\nProc-Type: 4,ENCRYPTED\n\n");
  const none: readonly string[] = [];

  test.each<[string, Record<string, string>, Record<string, string>, readonly string[]]>([
    ["the first file that is there", { "b.crt": first, "c.crt": second }, {}, [first]],
    ["only the first, even if it is empty", { "a.crt": "", "b.crt": first }, {}, none],
    ["a file that is a folder is skipped", { "a.crt/x": first, "b.crt": second }, {}, [second]],
    [
      "every file of every folder, whatever its name",
      { "certs/x.bundle": first, "more/plain": second },
      {},
      [first, second],
    ],
    ["the file beside the folders", { "a.crt": first, "certs/x": second, "more/y": third }, {}, [first, second, third]],
    ["several in one file, with text between", { "a.crt": `# x\n${first}\nhello\n${second}` }, {}, [first, second]],
    ["Windows line ends", { "a.crt": first.replaceAll("\n", "\r\n") }, {}, [first]],
    ["each once", { "a.crt": first + first, "certs/x": first }, {}, [first]],
    ["a folder in a folder is skipped", { "certs/sub/x": first, "certs/y": second }, {}, [second]],
    ["a link to a file elsewhere", { "real/x": first, "certs/x": "-> $ROOT/real/x" }, {}, [first]],
    ["a dangling link is skipped", { "certs/x": "-> /nowhere/at/all", "certs/y": second }, {}, [second]],
    ["a broken entry among good ones", { "a.crt": first + broken + second }, {}, [first, second]],
    ["a broken file among good ones", { "certs/x": "\u0000\u00ff no PEM", "certs/y": second }, {}, [second]],
    ["an entry without an end", { "a.crt": `-----BEGIN CERTIFICATE-----\nMIIB\n${second}` }, {}, [second]],
    ["other kinds of blocks", { "a.crt": other + withHeader + third }, {}, [third]],
    ["nothing at all", {}, {}, none],
    [
      "SSL_CERT_FILE in place of the files",
      { "a.crt": first, "own.pem": second, "certs/x": third },
      { SSL_CERT_FILE: "own.pem" },
      [second, third],
    ],
    ["SSL_CERT_FILE that is missing", { "a.crt": first, "certs/x": third }, { SSL_CERT_FILE: "gone.pem" }, [third]],
    [
      "SSL_CERT_DIR in place of the folders",
      { "a.crt": first, "d1/x": second, "certs/x": third },
      { SSL_CERT_DIR: "d1" },
      [first, second],
    ],
    [
      "SSL_CERT_DIR with several, one missing",
      { "d1/ca-bundle.crt": first, "d2/y": second },
      { SSL_CERT_DIR: "d1:gone:d2" },
      [first, second],
    ],
    [
      "both",
      { "f.pem": first, "d/x": second, "a.crt": third },
      { SSL_CERT_FILE: "f.pem", SSL_CERT_DIR: "d" },
      [first, second],
    ],
    ["empty variables count for nothing", { "a.crt": first }, { SSL_CERT_FILE: "", SSL_CERT_DIR: "" }, [first]],
  ])("%s", async (_, files, variables, wanted) => {
    await using root = await makeFolder();
    await write(root.path, files);
    const paths = (text: string): string =>
      text === ""
        ? ""
        : text
            .split(":")
            .map((name) => join(root.path, name))
            .join(":");
    const env = Object.fromEntries(Object.entries(variables).map(([name, value]) => [name, paths(value)]));
    const found = await readAuthorities(env, { places: places(root.path) });
    expect(found.map(blockOf)).toEqual(wanted.map(blockOf));
  });

  test("leaves a fifo alone, and certificates that are known", async () => {
    await using root = await makeFolder();
    await write(root.path, { "certs/x": first + second });
    await Bun.spawn(["mkfifo", join(root.path, "certs/fifo")]).exited;
    const found = await readAuthorities({}, { places: places(root.path), known: [first] });
    expect(found.map(blockOf)).toEqual([blockOf(second)]);
  });

  test("skips the links of c_rehash, which name the same files", async () => {
    await using root = await makeFolder();
    await write(root.path, { "certs/x.pem": first, "certs/0a1b2c3d.0": "-> x.pem" });
    expect((await readAuthorities({}, { places: places(root.path) })).length).toBe(1);
  });
});

describe("a server that only the system vouches for", () => {
  /** Asks the server with these files in SSL_CERT_DIR. */
  const ask = async (files: Readonly<Record<string, string>>, host = `localhost:${server.port}`): Promise<unknown> => {
    await using root = await makeFolder();
    await write(root.path, files);
    await using client = makeClient({ env: { SSL_CERT_DIR: `/nowhere:${root.path}`, SSL_CERT_FILE: "/nowhere.pem" } });
    return await client.registry.hasBlob({ host, path: "app" }, textBlob("").descriptor);
  };

  test.each<[string, () => Record<string, string>]>([
    ["by its root", () => ({ "ca-bundle.crt": authority.root })],
    ["by the one between, which did not sign itself", () => ({ x: authority.between })],
    ["by its own certificate", () => ({ x: authority.server.cert.replace(authority.between, "") })],
    [
      "beside bad entries",
      () => ({ a: "garbage", b: `${authority.root}\n-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----` }),
    ],
  ])("is trusted %s", async (_, files) => {
    expect(await ask(files())).toBe(true);
  });

  test.each<[string, () => Record<string, string>]>([
    ["nothing", () => ({})],
    ["another authority", () => ({ x: first })],
    ["garbage", () => ({ x: "garbage" })],
  ])("is not trusted with %s", async (_, files) => {
    const { hint, message } = await failureOf(ask(files()));
    expect(message).toContain("its certificate is not trusted (UNABLE_TO_");
    expect(hint).toContain("Set SSL_CERT_FILE");
  });

  test("is not trusted under another name", async () => {
    const { message } = await failureOf(ask({ x: authority.root }, `ip6.localhost:${server.port}`));
    expect(message).toMatch(/ALTNAME|HOSTNAME/);
  });

  test("is a Docker daemon", async () => {
    await using root = await makeFolder();
    await write(root.path, { "certs/x": authority.root });
    const log = { info() {}, warn() {}, debug() {} };
    const { signal } = new AbortController();
    const open = async (env: Readonly<Record<string, string>>): Promise<string> => {
      const host = hostAt(root.path, {
        env: { HOME: root.path, DOCKER_HOST: `https://localhost:${server.port}`, ...env },
      });
      await using engine = await DockerEngine.open(await findDaemon(host), { log, signal });
      return engine.name;
    };
    expect(await open({ SSL_CERT_DIR: join(root.path, "certs") })).toContain("localhost");
    expect((await failureOf(open({}))).message).toContain("its certificate is not trusted");
  });

  test("is the source of a document", async () => {
    await using root = await makeFolder();
    await write(root.path, { "certs/x": authority.root });
    const read = async (env: Readonly<Record<string, string>>): Promise<string> => {
      const options = { host: hostAt(root.path, { env }), signal: new AbortController().signal };
      return new TextDecoder().decode(await fetchInput(`https://localhost:${server.port}/x.yaml`, options));
    };
    expect(await read({ SSL_CERT_FILE: join(root.path, "certs/x") })).toBe("kind: Test\n");
    expect((await failureOf(read({}))).message).toContain("UNABLE_TO_");
  });
});

describe("SystemTrust", () => {
  const url = new URL("https://registry.example/");
  const failure = (code: string): Error => Object.assign(new Error(code), { code });

  test("reads nothing while Bun trusts a server", async () => {
    const options: unknown[] = [];
    const trust = new SystemTrust({});
    for (let i = 0; i < 2; i++) await trust.connect(url, async (each) => options.push(each));
    await trust.connect(new URL("http://registry.example/"), async (each) => options.push(each));
    expect(options).toEqual([{}, {}, {}]);
  });

  test.each(["ECONNRESET", "ERR_TLS_CERT_ALTNAME_INVALID", "ENOTFOUND"])("does not help against %s", async (code) => {
    let asked = 0;
    const trust = new SystemTrust({ SSL_CERT_DIR: folder.path });
    const work = trust.connect(url, async () => {
      asked++;
      throw failure(code);
    });
    expect(await rejectionOf(work)).toMatchObject({ code });
    expect(asked).toBe(1);
  });

  test("remembers a server that needs the system's authorities", async () => {
    const seen: number[] = [];
    const trust = new SystemTrust({ SSL_CERT_FILE: join(folder.path, "root.pem"), SSL_CERT_DIR: "/nowhere" });
    const send = async ({ ca }: { readonly ca?: readonly string[] }): Promise<void> => {
      seen.push(ca?.length ?? 0);
      if (ca === undefined) throw failure("SELF_SIGNED_CERT_IN_CHAIN");
    };
    await trust.connect(url, send);
    await trust.connect(url, send);
    expect(seen).toEqual([0, rootCertificates.length + 1, rootCertificates.length + 1]);
  });
});

/** Why no file system can be laid over /etc here, or undefined. */
const canMount = process.platform === "linux" && Bun.spawnSync(["unshare", "-m", "true"]).exitCode === 0;
if (!canMount) console.warn("skipped: no mount namespaces (needs root)");

test.skipIf(!canMount)("all places of Linux are read", async () => {
  const script = `
    import { readAuthorities } from ${JSON.stringify(join(import.meta.dir, "../lib/http-trust.ts"))};
    console.log((await readAuthorities({})).length);`;
  const places = [
    ...["ssl/certs/ca-certificates.crt", "pki/tls/certs/ca-bundle.crt", "ssl/ca-bundle.pem", "pki/tls/cacert.pem"],
    ...["pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "ssl/cert.pem", "ssl/certs/own", "pki/tls/certs/own"],
  ];
  const found = await Promise.all(
    places.map(async (place) => {
      await using etc = await makeFolder();
      await write(etc.path, { [place]: authority.root });
      const child = Bun.spawn(
        [
          "unshare",
          "-m",
          "sh",
          "-c",
          'mount --bind "$0" /etc && exec "$@"',
          etc.path,
          process.execPath,
          "--no-env-file",
          "-e",
          script,
        ],
        { stdin: "ignore", stdout: "pipe", stderr: "inherit", env: { PATH: process.env["PATH"] ?? "" } },
      );
      return [place, (await new Response(child.stdout).text()).trim()];
    }),
  );
  expect(found).toEqual(places.map((place) => [place, "1"]));
});
