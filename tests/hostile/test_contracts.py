"""What a `.tflite` says of itself is held against what can be."""

import pytest
from keras_vit_device.classifier import Classifier

from tests.hostile import contracts


@pytest.mark.filterwarnings("ignore:.*range:UserWarning")
def test_a_contract_is_taken_or_refused_in_a_line():
    found = list(contracts.cases())
    assert len(found) > 90 and sum(taken for *_, taken in found) >= 10
    for name, content, taken in found:
        try:
            classifier = Classifier(content)
        except ValueError as error:
            assert not taken, (name, error)
            assert len(str(error).splitlines()) == 1 and len(str(error)) < 400, name
        else:
            assert taken and len(classifier.class_names) == 10, name
