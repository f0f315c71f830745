/**
 * Reaches a Docker daemon through ssh.
 *
 * A local socket takes connections, and one `ssh HOST docker system dial-stdio` carries each of them, as in the docker
 * program (docs/rules.md C1.5).
 */
import { join } from "node:path";
import type { Socket } from "bun";
import { CommandError, DaemonError, KoError, messageOf } from "./errors.ts";
import type { Host } from "./host.ts";
import { findLiteral } from "./url.ts";

export interface SshBridge extends AsyncDisposable {
  /** The path of the local socket. */
  readonly unix: string;
  /** The message of the last ssh that failed; undefined if none has. */
  lastWords(): string | undefined;
}

/**
 * Users and hosts. Others could reach a shell: ssh puts both into `ProxyCommand` and the kin of the user's configuration,
 * and takes a leading dash for an option (docs/rules.md C1.5).
 */
const USER = /^[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,254}$/;
const HOST_NAME = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}$/;
/** Bytes that wait for ssh before the socket is paused. */
const HIGH_WATER_BYTES = 256 * 1024;

/**
 * The command that connects stdin and stdout to the daemon at `ssh://[user@]host[:port][/path/of/socket]`.
 *
 * @param fail makes the error to throw
 * @throws {KoError} If the URL has another form, or a part of it has characters that no user, host or socket has.
 */
export function sshCommand(text: string, fail: (why: string) => KoError): readonly [string, ...string[]] {
  if (!URL.canParse(text)) throw fail("wanted ssh://user@host");
  const url = new URL(text);
  const [user, hostname] = [decode(url.username), findLiteral(url.hostname) ?? url.hostname];
  if (url.password !== "") throw fail("it holds a password; ssh takes keys");
  if (url.search !== "" || url.hash !== "") throw fail('it holds a "?" or a "#"');
  if (findLiteral(hostname) === undefined && !HOST_NAME.test(hostname)) {
    throw fail("its host is not a host name, wanted letters, digits and ._-");
  }
  if (user !== "" && !USER.test(user)) throw fail("its user is not a user name, wanted letters, digits and ._-@+");
  const path = url.pathname === "/" ? "" : decode(url.pathname);
  // The remote shell would expand other characters.
  if (!/^[\w./@:+-]*$/.test(path)) throw fail("the path of the socket may hold letters, digits and ./_-@:+");
  return [
    "ssh",
    "-o",
    "ConnectTimeout=30",
    "-T",
    ...(user === "" ? [] : ["-l", user]),
    ...(url.port === "" ? [] : ["-p", url.port]),
    "--",
    hostname,
    "docker",
    ...(path === "" ? [] : [`--host=unix://${path}`]),
    "system",
    "dial-stdio",
  ];
}

/**
 * Listens on a socket in a temporary folder. Disposing of the bridge ends its connections.
 *
 * @param argv of {@link sshCommand}
 * @throws {KoError} If ssh is not installed, or the socket cannot be created.
 */
export async function openSshBridge(host: Host, argv: readonly [string, ...string[]]): Promise<SshBridge> {
  if (host.findProgram(argv[0]) === undefined) {
    throw new DaemonError(`Cannot reach the Docker daemon: ${argv[0]} is not on PATH`, { hint: `Install ${argv[0]}.` });
  }
  await using stack = new AsyncDisposableStack();
  const folder = stack.use(await host.tempFolder("ko-ssh"));
  const unix = join(folder.path, "docker.sock");
  const running = new Set<Carrier>();
  let lastWords: string | undefined;
  const onFailure = (error: unknown): void => {
    lastWords = (error instanceof CommandError && error.stderr.trim()) || messageOf(error);
  };
  const server = Bun.listen<Carrier | undefined>({
    unix,
    data: undefined,
    socket: {
      open: (socket) => {
        const carrier = new Carrier(socket);
        socket.data = carrier;
        running.add(carrier);
        void carrier.run(host, { argv, onFailure }).then(() => running.delete(carrier));
      },
      data: (socket, chunk) => socket.data?.receive(chunk),
      drain: (socket) => socket.data?.drained(),
      close: (socket) => socket.data?.close(),
      error: (socket) => socket.data?.close(),
    },
  });
  stack.defer(async () => {
    server.stop(true);
    const all = [...running];
    for (const carrier of all) carrier.close();
    await Promise.all(all.map((carrier) => carrier.ended));
  });
  const closing = stack.move();
  return { unix, lastWords: () => lastWords, [Symbol.asyncDispose]: () => closing.disposeAsync() };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

interface CarrierOptions {
  readonly argv: readonly [string, ...string[]];
  /** Called before the connection ends, so that its user can read the reason then. */
  readonly onFailure: (error: unknown) => void;
}

/** A connection and the ssh that carries it. */
class Carrier {
  readonly #socket: Socket<Carrier | undefined>;
  readonly #closed = new AbortController();
  readonly #ended = Promise.withResolvers<void>();
  #stdin: ReadableStreamDefaultController<Uint8Array> | undefined;
  #drained: PromiseWithResolvers<void> | undefined;

  constructor(socket: Socket<Carrier | undefined>) {
    this.#socket = socket;
  }

  /** Resolves when ssh has ended; never rejects. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /** Runs ssh to its end; never rejects. */
  async run(host: Host, { argv, onFailure }: CarrierOptions): Promise<void> {
    const stdin = new ReadableStream<Uint8Array>(
      {
        start: (controller) => void (this.#stdin = controller),
        pull: () => this.#socket.resume(),
        cancel: () => void (this.#stdin = undefined),
      },
      { highWaterMark: HIGH_WATER_BYTES, size: (chunk) => chunk?.byteLength ?? 0 },
    );
    const signal = AbortSignal.any([host.signal, this.#closed.signal]);
    try {
      await host.run(argv, { stdin, stdout: (chunk) => this.#send(chunk), signal, maxBytes: 64 * 1024 });
    } catch (error) {
      // ssh also fails if this side closes the connection: that is not its failure.
      if (!this.#closed.signal.aborted) onFailure(error);
    } finally {
      this.#socket.end();
      this.#ended.resolve();
    }
  }

  receive(chunk: Uint8Array): void {
    // Bun reuses the chunk's memory.
    this.#stdin?.enqueue(new Uint8Array(chunk));
    if ((this.#stdin?.desiredSize ?? 1) <= 0) this.#socket.pause();
  }

  drained(): void {
    this.#drained?.resolve();
  }

  close(): void {
    if (this.#closed.signal.aborted) return;
    this.#drained?.resolve();
    try {
      this.#stdin?.close();
    } catch {
      // ssh has ended and closed its stdin.
    }
    this.#closed.abort(new Error("the connection is closed"));
  }

  async #send(chunk: Uint8Array): Promise<void> {
    for (let at = 0; at < chunk.byteLength && !this.#closed.signal.aborted;) {
      const written = this.#socket.write(chunk.subarray(at));
      if (written < 0) return;
      at += written;
      if (at === chunk.byteLength) return;
      this.#drained = Promise.withResolvers();
      await this.#drained.promise;
    }
  }
}
