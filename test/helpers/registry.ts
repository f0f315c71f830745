/**
 * Debian's docker-registry on a free loopback port, over a throw-away folder.
 *
 * `registry-fault-proxy.ts` goes in front of it where something must break.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { makeFolder, stateFolder } from "./world-folders.ts";
import { waitForServer } from "./world-programs.ts";

export interface TestRegistry extends AsyncDisposable {
  /** `127.0.0.1:PORT` */
  readonly host: string;
  /** Path of its certificate in PEM, if it speaks TLS. */
  readonly certificate: string | undefined;
  /** Absolute path of the folder where it keeps its content. */
  readonly data: string;
}

export interface StartRegistryOptions {
  /** Speaks https with a certificate of its own for 127.0.0.1, signed by nobody else. @default false */
  readonly tls?: boolean;
  /** @default a free one */
  readonly port?: number;
  /** Demands Basic with one of these passwords, by user. @default open */
  readonly accounts?: Readonly<Record<string, string>>;
}

/** Why there is no docker-registry here, or undefined; in CI that is an error instead. */
export function whyNoRegistry(): string | undefined {
  if (Bun.which("docker-registry") !== null) return undefined;
  const message = "docker-registry is not installed (apt-get install docker-registry)";
  if (process.env["CI"]) throw new Error(message);
  console.warn(`skipped: ${message}`);
  return message;
}

/** Starts it and waits until it answers. */
export async function startRegistry(options: StartRegistryOptions = {}): Promise<TestRegistry> {
  await using stack = new AsyncDisposableStack();
  const folder = stack.use(await makeFolder(stateFolder()));
  const data = join(folder.path, "data");
  const certificate = options.tls === true ? await makeCertificate(folder.path) : undefined;
  const host = `127.0.0.1:${options.port ?? (await findFreePort())}`;
  const config = join(folder.path, "config.json");
  const log = join(folder.path, "log");
  const { accounts } = options;
  const htpasswd = join(folder.path, "htpasswd");
  if (accounts !== undefined) {
    const lines = Object.entries(accounts).map(async ([user, password]) => {
      return `${user}:${await Bun.password.hash(password, { algorithm: "bcrypt", cost: 4 })}\n`;
    });
    await Bun.write(htpasswd, (await Promise.all(lines)).join(""));
  }
  // JSON is YAML.
  await Bun.write(
    config,
    JSON.stringify({
      version: 0.1,
      log: { level: "error", accesslog: { disabled: true } },
      storage: { filesystem: { rootdirectory: data }, delete: { enabled: true } },
      ...(accounts === undefined ? {} : { auth: { htpasswd: { realm: "test", path: htpasswd } } }),
      http: {
        addr: host,
        ...(certificate === undefined ? {} : { tls: { certificate, key: join(folder.path, "key.pem") } }),
      },
    }),
  );
  const child = Bun.spawn(["docker-registry", "serve", config], {
    stdin: "ignore",
    stdout: "ignore",
    stderr: Bun.file(log),
  });
  stack.defer(async () => {
    child.kill();
    await child.exited;
  });
  const url = `${certificate === undefined ? "http" : "https"}://${host}/v2/`;
  const isUp = (): Promise<boolean> =>
    fetch(url, { tls: { rejectUnauthorized: false }, keepalive: false }).then(
      ({ ok, status }) => ok || (accounts !== undefined && status === 401),
      () => false,
    );
  await waitForServer([child], { isUp, log: () => readFileSync(log, "utf8") });
  const closing = stack.move();
  return { host, certificate, data, [Symbol.asyncDispose]: () => closing.disposeAsync() };
}

/** A port of loopback that was free a moment ago. */
export async function findFreePort(): Promise<number> {
  const probe = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = probe;
  probe.stop(true);
  return port;
}

/** Writes `cert.pem` and `key.pem` for 127.0.0.1 into `folder`. */
export async function makeCertificate(folder: string): Promise<string> {
  const certificate = join(folder, "cert.pem");
  const argv = [
    "openssl",
    "req",
    "-x509",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
    "-days",
    "2",
  ];
  const names = ["-subj", "/CN=ko test", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"];
  const child = Bun.spawn([...argv, ...names, "-keyout", join(folder, "key.pem"), "-out", certificate], {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  const text = await new Response(child.stderr).text();
  if ((await child.exited) !== 0) throw new Error(`openssl failed: ${text}`);
  return certificate;
}

export interface TestAuthority {
  /** The root in PEM, which signed itself. */
  readonly root: string;
  /** The one between the root and the server in PEM. */
  readonly between: string;
  /** The certificate of a server for localhost and 127.0.0.1, with the one between, and its key in PEM. */
  readonly server: { readonly cert: string; readonly key: string };
}

/** Makes a certificate authority of two stages, in `folder`. */
export async function makeAuthority(folder: string): Promise<TestAuthority> {
  const key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
  const isAuthority = "basicConstraints=critical,CA:TRUE";
  await Bun.write(join(folder, "ca.ext"), `${isAuthority}\n`);
  await Bun.write(join(folder, "server.ext"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n");
  const sign = (name: string, by: string, extensions: string): string =>
    `x509 -req -days 2 -in ${name}.csr -CA ${by}.pem -CAkey ${by}.key -CAcreateserial -extfile ${extensions} -out ${name}.pem`;
  for (const words of [
    `req -x509 ${key} -days 2 -subj /CN=root -addext ${isAuthority} -keyout root.key -out root.pem`,
    `req ${key} -subj /CN=between -keyout between.key -out between.csr`,
    sign("between", "root", "ca.ext"),
    `req ${key} -subj /CN=server -keyout server.key -out server.csr`,
    sign("server", "between", "server.ext"),
  ]) {
    const child = Bun.spawn(["openssl", ...words.split(" ")], { cwd: folder, stdin: "ignore", stderr: "pipe" });
    const text = await new Response(child.stderr).text();
    if ((await child.exited) !== 0) throw new Error(`openssl failed: ${text}`);
  }
  const read = (name: string): string => readFileSync(join(folder, name), "utf8");
  const [root, between] = [read("root.pem"), read("between.pem")];
  return { root, between, server: { cert: read("server.pem") + between, key: read("server.key") } };
}
