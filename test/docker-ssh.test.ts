import { describe, expect, test } from "bun:test";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { connect } from "node:net";
import { openSshBridge, type SshBridge, sshCommand } from "../lib/docker-ssh.ts";
import { KoError } from "../lib/errors.ts";
import { randomBytes } from "./helpers/images.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";
import { hostAt } from "./helpers/world-host.ts";

describe("sshCommand()", () => {
  test.each([
    ["ssh://far", ["--", "far", "docker"]],
    ["ssh://me@far", ["-l", "me", "--", "far", "docker"]],
    ["ssh://m%40e@far:2222/", ["-l", "m@e", "-p", "2222", "--", "far", "docker"]],
    ["ssh://[::1]/run/a%2Bb.sock", ["--", "::1", "docker", "--host=unix:///run/a+b.sock"]],
    ["ssh://first.last+ci@build_host-1.example", ["-l", "first.last+ci", "--", "build_host-1.example", "docker"]],
    ["ssh://_svc@10.0.0.2", ["-l", "_svc", "--", "10.0.0.2", "docker"]],
  ])("of %s", (url, own) => {
    const argv = sshCommand(url, (why) => new KoError(why));
    expect(argv).toEqual(["ssh", "-o", "ConnectTimeout=30", "-T", ...own, "system", "dial-stdio"]);
  });
});

describe("sshCommand() refuses", () => {
  const user = "its user is not a user name, wanted letters, digits and ._-@+";
  const host = "its host is not a host name, wanted letters, digits and ._-";
  test.each([
    ["ssh://$(touch%20x)@far", user],
    ["ssh://a%60id%60@far", user],
    ["ssh://a%3Bid@far", user],
    ["ssh://a'b@far", user],
    ["ssh://CORP%5Cme@far", user],
    ["ssh://a%0Ab@far", user],
    ["ssh://%2DoProxyCommand%3Dx@far", user],
    // Not a valid encoding: taken as it is.
    ["ssh://%zz@far", user],
    ["ssh://me@a%24(id)", host],
    ["ssh://me@a$(id)", host],
    ["ssh://me@a`id`", host],
    ["ssh://me@a;id", host],
    ["ssh://me@a&b", host],
    ["ssh://me@a'b", host],
    ["ssh://me@-oProxyCommand=x", host],
    ["ssh://me@%2DoProxyCommand", host],
    ["ssh://me@far%20away", host],
    ["ssh://me@", "wanted ssh://user@host"],
    ["ssh://me@far/$(id)", "the path of the socket may hold letters, digits and ./_-@:+"],
  ])("%s", (url, why) => {
    expect(() => sshCommand(url, (reason) => new KoError(reason))).toThrow(new KoError(why));
  });
});

/** A folder with an `ssh` that runs `script`. */
function writeSsh(script: string): Tree {
  const tree = writeTree({});
  tree.write({ "bin/ssh": { executable: `#!/bin/sh\ncd '${tree.path}' || exit 99\n${script}\n` } });
  return tree;
}

function open(tree: Tree): Promise<SshBridge> {
  const env = { ...process.env, PATH: `${tree.at("bin")}:${process.env["PATH"] ?? ""}`, TMPDIR: tree.path };
  return openSshBridge(hostAt(tree.path, { env }), ["ssh", "far"]);
}

/** Sends `bytes`, reads until as many have come back or the other side closes, and closes the connection. */
async function echo({ unix }: SshBridge, bytes: Uint8Array): Promise<Buffer> {
  const socket = connect({ path: unix });
  socket.write(bytes);
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of socket) {
    if (!Buffer.isBuffer(chunk)) throw new TypeError("a socket gives bytes");
    chunks.push(chunk);
    size += chunk.byteLength;
    if (size >= bytes.byteLength) break;
  }
  return Buffer.concat(chunks);
}

describe("openSshBridge()", () => {
  test("carries each connection through an ssh of its own, in both directions, more than buffers hold", async () => {
    using tree = writeSsh("echo $$ >> pids\nexec cat");
    await using bridge = await open(tree);
    const [one, two] = [Buffer.from(randomBytes("one", 3_000_000)), Buffer.from(randomBytes("two", 3_000_000))];
    const read = await Promise.all([echo(bridge, one), echo(bridge, two)]);
    expect(read.map((bytes, i) => bytes.equals(i === 0 ? one : two))).toEqual([true, true]);
    expect((await Bun.file(tree.at("pids")).text()).trim().split("\n")).toHaveLength(2);
    // Closing the connection ended ssh: that is not its failure.
    expect(bridge.lastWords()).toBeUndefined();
  });

  test.each([
    ["its stderr", "echo 'Permission denied (publickey).' >&2; exit 255", "Permission denied (publickey)."],
    ["its exit code if stderr is empty", "exit 3", "Cannot run ssh: exit code 3"],
  ])("closes the connection when ssh fails, and reports %s", async (_name, script, words) => {
    using tree = writeSsh(script);
    await using bridge = await open(tree);
    expect(await echo(bridge, new Uint8Array(0))).toHaveLength(0);
    expect(bridge.lastWords()).toBe(words);
  });

  test("ends every ssh and removes the socket when it is disposed of", async () => {
    using tree = writeSsh("echo $$\nexec sleep 600");
    const bridge = await open(tree);
    const socket = connect({ path: bridge.unix });
    const closed = once(socket, "close");
    const [line]: unknown[] = await once(socket, "data");
    await bridge[Symbol.asyncDispose]();
    await closed;
    expect(existsSync(bridge.unix)).toBe(false);
    expect(() => process.kill(Number(String(line)), 0)).toThrow("ESRCH");
  });
});
