/**
 * Reads `linux_capabilities` of `.ko.yaml` as the original does: names, or clauses of cap_from_text(3) such as
 * `net_raw,net_admin=ep`.
 *
 * The result is the extended attribute `security.capability` of the program's file: `struct vfs_cap_data`, revision 2, of
 * https://github.com/torvalds/linux/blob/master/include/uapi/linux/capability.h.
 */
import { nameWord, type Word } from "./config-file.ts";
import { findNearest, UsageError } from "./errors.ts";

export interface Capabilities {
  /** The 20 bytes of the attribute. */
  readonly attribute: Uint8Array;
  /** The kernel raises them at the start of the program, so it refuses to start a process that may not have them. */
  readonly isEffective: boolean;
}

/** In the order of the kernel: the index is the number of the capability. */
export const CAPABILITY_NAMES: readonly string[] = [
  "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service",
  "net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin",
  "sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override",
  "mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore",
].flatMap((line) => line.split(" "));

const ALL = (1n << BigInt(CAPABILITY_NAMES.length)) - 1n;
const HIGHEST_NUMBER = 63;
const REVISION_2 = 0x02000000;
const EFFECTIVE = 1;

/** Sets of capabilities, as bits. */
interface Sets {
  p: bigint;
  i: bigint;
  e: bigint;
}

/**
 * Reads the terms in their order.
 *
 * @returns undefined if no capability is permitted or inheritable: then the file has no attribute
 * @throws {UsageError} If a term is malformed, or names a capability that does not exist.
 */
export function readCapabilities(terms: readonly Word[]): Capabilities | undefined {
  const sets: Sets = { p: 0n, i: 0n, e: 0n };
  for (const term of terms) {
    const at = term.value.search(/[-+=]/);
    if (at < 0) sets.p |= maskOf(term.value, term);
    else apply(sets, { term, names: term.value.slice(0, at), actions: term.value.slice(at) });
  }
  if (sets.p === 0n && sets.i === 0n) return undefined;
  const isEffective = sets.e !== 0n;
  const attribute = new Uint8Array(20);
  const view = new DataView(attribute.buffer);
  const words = [sets.p, sets.i, sets.p >> 32n, sets.i >> 32n].map((word) => Number(BigInt.asUintN(32, word)));
  for (const [i, word] of [REVISION_2 + (isEffective ? EFFECTIVE : 0), ...words].entries()) {
    view.setUint32(4 * i, word, true);
  }
  return { attribute, isEffective };
}

/** Writes capabilities as clauses: `net_bind_service,net_raw=ep chown=p`. */
export function formatCapabilities({ attribute, isEffective }: Capabilities): string {
  const view = new DataView(attribute.buffer, attribute.byteOffset, attribute.byteLength);
  const read = (low: number, high: number): bigint =>
    BigInt(view.getUint32(low, true)) | (BigInt(view.getUint32(high, true)) << 32n);
  const [permitted, inheritable] = [read(4, 12), read(8, 16)];
  const groups = new Map<string, string[]>();
  for (let number = 0; number <= HIGHEST_NUMBER; number++) {
    const has = (set: bigint): boolean => ((set >> BigInt(number)) & 1n) === 1n;
    const actions = `${isEffective ? "e" : ""}${has(inheritable) ? "i" : ""}${has(permitted) ? "p" : ""}`;
    if (!has(permitted) && !has(inheritable)) continue;
    groups.set(actions, [...(groups.get(actions) ?? []), CAPABILITY_NAMES[number] ?? String(number)]);
  }
  return Array.from(groups, ([actions, names]) => `${names.join(",")}=${actions}`).join(" ");
}

interface Clause {
  readonly term: Word;
  /** Separated by commas. */
  readonly names: string;
  /** Begins with an operator. */
  readonly actions: string;
}

function apply(sets: Sets, { actions, names, term }: Clause): void {
  const listed = names === "" && actions.startsWith("=") ? ["all"] : names.split(",");
  let mask = 0n;
  for (const name of listed) mask |= maskOf(name, term);
  let isRemoved = false;
  for (const action of actions) {
    switch (action) {
      case "+":
      case "-":
      case "=":
        isRemoved = action === "-";
        if (action === "=") for (const set of ["p", "i", "e"] as const) sets[set] &= ~mask;
        break;
      case "p":
      case "i":
      case "e":
        sets[action] = isRemoved ? sets[action] & ~mask : sets[action] | mask;
        break;
      default:
        throw fail(
          term,
          `"${action}" is no set of capabilities, wanted p (permitted), i (inheritable) or e (effective)`,
        );
    }
  }
}

function maskOf(text: string, term: Word): bigint {
  if (/^\d+$/.test(text)) {
    const number = Number(text);
    if (number <= HIGHEST_NUMBER) return 1n << BigInt(number);
    throw fail(term, `${text} is no capability, wanted a name or 0 to ${HIGHEST_NUMBER}`);
  }
  const name = text.toLowerCase();
  if (name === "all") return ALL;
  const index = CAPABILITY_NAMES.indexOf(name.replace(/^cap_/, ""));
  if (index >= 0) return 1n << BigInt(index);
  if (text === "") throw fail(term, "a name is missing, wanted NAME,NAME=ep");
  if (text.includes(",")) throw fail(term, "a list of names needs an action", `Type: ${text}=p`);
  const nearest = findNearest(name, CAPABILITY_NAMES);
  throw fail(term, `"${text}" is no capability${nearest === undefined ? "" : `, the nearest is "${nearest}"`}`);
}

function fail(word: Word, why: string, hint?: string): UsageError {
  return new UsageError(`Cannot use ${nameWord(word)}: "${word.value}": ${why}`, { hint });
}
