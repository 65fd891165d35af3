"""What must not leave the process: the inventory's secrets and vendors' tokens, kept out of observations, changes, errors and logs."""

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from detect_secrets.plugins import (
    artifactory,
    aws,
    azure_storage_key,
    cloudant,
    discord,
    github_token,
    gitlab_token,
    ibm_cloud_iam,
    ibm_cos_hmac,
    jwt,
    mailchimp,
    openai,
    pypi_token,
    sendgrid,
    slack,
    softlayer,
    square_oauth,
    stripe,
    telegram_token,
    twilio,
)

from tasks.core.errors import EvenkeelError
from tasks.core.models import Change, Observation, Plan, Reading
from tasks.core.redaction import Redactor

# Left out: plugins that measure entropy or match addresses (a diagnosis needs them), and basic_auth, npm and private_key, for which
# `tasks.core.redaction` has rules that keep what is no secret.
_PLUGINS = (
    artifactory.ArtifactoryDetector,
    aws.AWSKeyDetector,
    azure_storage_key.AzureStorageKeyDetector,
    cloudant.CloudantDetector,
    discord.DiscordBotTokenDetector,
    github_token.GitHubTokenDetector,
    gitlab_token.GitLabTokenDetector,
    ibm_cloud_iam.IbmCloudIamDetector,
    ibm_cos_hmac.IbmCosHmacDetector,
    jwt.JwtTokenDetector,
    mailchimp.MailchimpDetector,
    openai.OpenAIDetector,
    pypi_token.PypiTokenDetector,
    sendgrid.SendGridDetector,
    slack.SlackDetector,
    softlayer.SoftlayerDetector,
    square_oauth.SquareOAuthDetector,
    stripe.StripeDetector,
    telegram_token.TelegramBotTokenDetector,
    twilio.TwilioKeyDetector,
)


@cache
def vendor_patterns() -> tuple[re.Pattern[str], ...]:
    """Patterns of vendors' tokens, from detect-secrets."""
    return tuple(pattern for plugin in _PLUGINS for pattern in plugin.denylist)


def redacted_observation(redactor: Redactor, observation: Observation) -> Observation:
    """The observation without secrets; its health and its symptoms stay."""
    findings = tuple(finding.model_copy(update={"summary": redactor.text(finding.summary)}) for finding in observation.findings)
    return observation.model_copy(
        update={
            "findings": findings,
            "reading": Reading(values=redactor.value(observation.reading.values)),
            "summary": redactor.text(observation.summary),
        }
    )


def redacted_change(redactor: Redactor, change: Change) -> Change:
    """The change without secrets."""
    return Change(before=redactor.value(change.before), after=redactor.value(change.after), undo=redactor.value(change.undo))


def redacted_plan(redactor: Redactor, plan: Plan) -> Plan:
    """The plan with no secret in what it says; what its steps are called with stays, for it may be executed."""
    texts = {name: redactor.text(getattr(plan, name)) for name in ("diagnosis", "reasoning", "expected")}
    lists = {name: tuple(redactor.text(one) for one in getattr(plan, name)) for name in ("evidence", "notes")}
    steps = tuple(step.model_copy(update={"why": redactor.text(step.why)}) for step in plan.steps)
    return plan.model_copy(update={**texts, **lists, "steps": steps})


def redacted_error(redactor: Redactor, error: EvenkeelError) -> EvenkeelError | None:
    """The same kind of error without its secrets, to be raised `from None`; None where it holds none."""
    said = str(error)
    masked = redactor.text(said)
    return None if masked == said else type(error)(masked)


class SecretsFilter(logging.Filter):
    """Masks in every record the secrets that any of the given redactors knows by value, in its traceback too."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        # Replaced as a whole, never changed: other threads may be logging.
        self._redactors: tuple[Redactor, ...] = ()

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record through, masked."""
        redactors = self._redactors
        if not redactors:
            return True
        message = record.getMessage()
        masked = _masked(message, redactors)
        if masked != message:
            record.msg, record.args = masked, None
        if record.exc_info or record.exc_text:
            trace = record.exc_text or _FORMATTER.formatException(record.exc_info)  # type: ignore[arg-type]
            masked = _masked(trace, redactors)
            if masked != trace:
                record.exc_text, record.exc_info = masked, None
        return True

    def add(self, redactor: Redactor) -> None:
        """Mask what this redactor knows from now on, in every handler there is."""
        with self._lock:
            self._redactors = (*self._redactors, redactor)
            for handler in _handlers():
                if self not in handler.filters:
                    handler.filters = [*handler.filters, self]

    def remove(self, redactor: Redactor) -> None:
        """Leave it out again; without any, the filter leaves the handlers."""
        with self._lock:
            self._redactors = tuple(other for other in self._redactors if other is not redactor)
            if not self._redactors:
                for handler in _handlers():
                    handler.filters = [other for other in handler.filters if other is not self]


_FORMATTER = logging.Formatter()
_FILTER = SecretsFilter()


def _masked(text: str, redactors: tuple[Redactor, ...]) -> str:
    for redactor in redactors:
        text = redactor.known(text)
    return text


def _handlers() -> set[logging.Handler]:
    # On the handlers: a logger's own filters don't see what its children log.
    loggers = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    return {handler for logger in loggers if isinstance(logger, logging.Logger) for handler in logger.handlers}


@contextmanager
def masked_logs(redactor: Redactor) -> Iterator[None]:
    """Keep the secrets that the redactor knows by value out of the logs.

    After an error the masking stays: whoever catches the error is about to log it.
    """
    _FILTER.add(redactor)
    yield
    _FILTER.remove(redactor)
