/**
 * Why a Pod does not run yet, or never will: read from its status and its events.
 *
 * https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/ and the reasons that kubelet writes.
 */
import { fieldAt, listAt, numberAt, textAt } from "./json.ts";
import { conditionOf } from "./rollout-objects.ts";

/** Something that keeps a Pod from being ready. */
export interface Cause {
  /** A sentence without a full stop. */
  readonly text: string;
  /** Waiting does not help. */
  readonly hopeless: boolean;
  readonly pod: string;
  /** The container whose last lines say more; undefined if there are none. */
  readonly log?: { readonly container: string; readonly previous: boolean };
  /** The node, if its processor may be the reason. */
  readonly node?: string;
}

/** A container's status within its Pod. */
interface Container {
  readonly pod: unknown;
  readonly podName: string;
  readonly name: string;
  readonly image: string;
  readonly status: unknown;
  readonly events: readonly unknown[];
}

/** What registries, container runtimes and Kubernetes say of an image that no time brings. */
const NO_IMAGE =
  /not found|manifest unknown|name unknown|denied|unauthorized|authorization failed|forbidden|no match(?:ing manifest)? for platform|x509|server gave HTTP response to HTTPS client|invalid reference|unsupported/i;
const NOT_STARTED = /exec format error|executable file not found|no such file or directory|permission denied/i;

/** The exit codes of a runtime that could not execute the program: runc ends with 1 or 255, and logs why. */
const FOREIGN_CODES: readonly number[] = [1, 255];

/** The exit codes of a program that was told to end: well, by SIGKILL, by SIGTERM. */
const STOPPED_CODES: readonly number[] = [0, 137, 143];

/** The causes of a Pod, the hopeless ones first. @param events those of the Pod */
export function causesOf(pod: unknown, events: readonly unknown[]): readonly Cause[] {
  const podName = textAt(pod, "metadata", "name");
  const own = [...listAt(pod, "status", "initContainerStatuses"), ...listAt(pod, "status", "containerStatuses")];
  const containers = own.map((status): Container => {
    const [name, image] = [textAt(status, "name"), textAt(status, "image")];
    return { pod, podName, name, image: imageOf(pod, name) || image, status, events };
  });
  const causes = [...podCauses(pod, { podName, events }), ...containers.flatMap(causesOfContainer)];
  return causes.toSorted((a, b) => Number(b.hopeless) - Number(a.hopeless));
}

function podCauses(
  pod: unknown,
  { events, podName }: { readonly podName: string; readonly events: readonly unknown[] },
): readonly Cause[] {
  const scheduled = conditionOf(pod, "PodScheduled");
  if (scheduled?.status === "False") {
    // An autoscaler may bring a node.
    return [{ text: `no node takes it: ${scheduled.message}`, hopeless: false, pod: podName }];
  }
  const isStarting = listAt(pod, "status", "containerStatuses").some((status) => {
    return /^(?:ContainerCreating|PodInitializing)$/.test(textAt(status, "state", "waiting", "reason"));
  });
  const mount = isStarting ? lastEvent(events, /^Failed(?:Mount|AttachVolume|CreatePodSandBox)$/) : undefined;
  return mount === undefined ? [] : [{ text: mount, hopeless: false, pod: podName }];
}

function causesOfContainer(container: Container): readonly Cause[] {
  const { name, podName, status } = container;
  const waiting = fieldAt(status, "state", "waiting");
  const reason = textAt(waiting, "reason");
  const message = textAt(waiting, "message");
  const cause = (text: string, more: Partial<Cause> = {}): readonly Cause[] => {
    return [{ text, hopeless: true, pod: podName, ...more }];
  };
  switch (reason) {
    case "ErrImagePull":
    case "ImagePullBackOff":
      return pullCauses(container, message);
    case "InvalidImageName":
      return cause(`the name of the image ${container.image} is not valid: ${message}`);
    case "ErrImageNeverPull":
      return cause(`the node does not have the image ${container.image}, and imagePullPolicy is Never`);
    case "CreateContainerConfigError":
      return cause(`container ${name} cannot be made: ${message}`);
    case "CreateContainerError":
    case "RunContainerError":
      return NOT_STARTED.test(message)
        ? startCauses(container, message)
        : cause(`container ${name} cannot be started: ${message}`, { hopeless: false });
    case "CrashLoopBackOff":
      return exitCauses(container, fieldAt(status, "lastState", "terminated"), true);
    case "":
      return runningCauses(container);
    default:
      return [];
  }
}

function pullCauses({ events, image, podName }: Container, message: string): readonly Cause[] {
  // "Back-off pulling image" says nothing: the event before it does.
  const said = NO_IMAGE.test(message) ? message : (lastEvent(events, /^Failed$/, /pull/i) ?? message);
  const why = said.replace(/^Failed to pull image "[^"]*": /, "").replace(/^(?:rpc error: code = \w+ desc = )+/, "");
  return [{ text: `the image ${image} cannot be pulled: ${why}`, hopeless: NO_IMAGE.test(said), pod: podName }];
}

function startCauses({ name, pod, podName }: Container, message: string): readonly Cause[] {
  // containerd and runc put their own names before the reason.
  const why = message.replace(/^.*?(?=exec: "|exec \/|exec format error)/s, "");
  const node = textAt(pod, "spec", "nodeName");
  const isForeign = /exec format error/.test(message) && node !== "";
  return [
    {
      text: `container ${name} cannot be started: ${why}`,
      hopeless: true,
      pod: podName,
      ...(isForeign ? { node } : {}),
    },
  ];
}

/** A container that runs or has ended: one that ended once may be restarted. */
function runningCauses(container: Container): readonly Cause[] {
  const { events, name, podName, status } = container;
  const ended = fieldAt(status, "state", "terminated");
  if (ended !== undefined) return exitCauses(container, ended, false);
  if (fieldAt(status, "state", "running") === undefined || fieldAt(status, "ready") === true) return [];
  // The wait between two restarts may be too short to be seen. A program that was stopped, as by a swap, did not fail.
  const before = fieldAt(status, "lastState", "terminated");
  const isFailed = before !== undefined && !STOPPED_CODES.includes(numberAt(before, "exitCode") ?? 0);
  if (isFailed && (numberAt(status, "restartCount") ?? 0) > 1) return exitCauses(container, before, false);
  const probe = lastEvent(events, /^Unhealthy$/, /^(?:Readiness|Startup) probe/);
  if (probe !== undefined) return [{ text: `container ${name} is not ready: ${probe}`, hopeless: false, pod: podName }];
  return [];
}

/** @param ended the state of the process that ended last */
function exitCauses(container: Container, ended: unknown, isBackingOff: boolean): readonly Cause[] {
  const { name, pod, podName, status } = container;
  const code = numberAt(ended, "exitCode") ?? 0;
  const reason = textAt(ended, "reason");
  const message = textAt(ended, "message");
  const restarts = numberAt(status, "restartCount") ?? 0;
  const isInit = listAt(pod, "status", "initContainerStatuses").includes(status);
  if (reason === "StartError" || reason === "ContainerCannotRun") return startCauses(container, message);
  const policy = textAt(pod, "spec", "restartPolicy");
  if (code === 0 && (isInit || policy !== "Always")) return [];
  const log = {
    container: name,
    previous: isBackingOff ? false : restarts > 0 && fieldAt(status, "state", "running") !== undefined,
  };
  // A container that has ended twice in a row will do so again. With restartPolicy Never, once is enough.
  const isHopeless = policy === "Never" || restarts > 0;
  const again = restarts > 0 ? ", again and again" : "";
  const common = { hopeless: isHopeless, pod: podName, log };
  if (reason === "OOMKilled") {
    const limit = limitOf(pod, name);
    const of = limit === "" ? "" : ` of ${limit}`;
    return [
      { text: `container ${name} was killed because it needs more memory than its limit${of}${again}`, ...common },
    ];
  }
  const signal = numberAt(ended, "signal");
  const how = signal === undefined || signal === 0 ? `ends with exit code ${code}` : `is ended by signal ${signal}`;
  const node = textAt(pod, "spec", "nodeName");
  return [
    {
      text: `container ${name} ${how}${again}`,
      ...common,
      ...(FOREIGN_CODES.includes(code) && node !== "" ? { node } : {}),
    },
  ];
}

/** The message of the last event with a reason. */
function lastEvent(events: readonly unknown[], reason: RegExp, message = /./s): string | undefined {
  const matching = events.filter(
    (event) => reason.test(textAt(event, "reason")) && message.test(textAt(event, "message")),
  );
  const [last] = matching.toSorted((a, b) => (timeOf(a) < timeOf(b) ? 1 : -1));
  return last === undefined ? undefined : textAt(last, "message").trim();
}

function timeOf(event: unknown): string {
  return textAt(event, "series", "lastObservedTime") || textAt(event, "lastTimestamp") || textAt(event, "eventTime");
}

function specOf(pod: unknown, name: string): unknown {
  const all = [...listAt(pod, "spec", "initContainers"), ...listAt(pod, "spec", "containers")];
  return all.find((each) => textAt(each, "name") === name);
}

/** The image of a container, also of one that runs before the others. */
export function imageOf(pod: unknown, name: string): string {
  return textAt(specOf(pod, name), "image");
}

function limitOf(pod: unknown, name: string): string {
  return textAt(specOf(pod, name), "resources", "limits", "memory");
}
